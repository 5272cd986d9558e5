"""Compare a mixer's own targets with the sources decoded from its images."""

from __future__ import annotations

import torch
from torch import Tensor

from labeltrace.mixing.batch import MixedBatch
from labeltrace.mixing.probe import BYTE

TOLERANCE = 1e-4
ROUNDING_STEPS = 8


def contradicts_classes(targets: Tensor, classes: Tensor) -> Tensor:
    """Which targets prefer a class that neither source has: (B,) bool.

    Label smoothing adds the same weight to every class, so it prefers none.

    Args:
        targets: (B, N) floating point, smoothed or not.
        classes: (B, 2) int64, of the image and its partner.
    """
    lowest, highest = _range_of_other_classes(targets, classes)
    is_missing = (classes >= targets.shape[1]).any(dim=1)
    return is_missing | ~(highest - lowest <= _tolerance(targets))  # true for NaN as well


def contradicts_ratio(targets: Tensor, batch: MixedBatch) -> Tensor:
    """Which images are blended at another ratio than their targets: (B,) bool.

    Pasted images are not compared: with timm's `correct_lam=False`, targets are those of the box
    before clipping, on purpose. Rows whose target does not determine the ratio are not compared
    either: two sources of the same class, or only two classes, where smoothing cannot be
    subtracted.

    Args:
        targets: (B, N) floating point, smoothed or not.
        batch: the mixed batch, with the classes of the decoded sources and their labels.
    """
    classes, labels = batch.classes, batch.labels
    tolerance = _tolerance(targets)
    if not batch.images.is_floating_point():
        tolerance += 1 / BYTE  # precision of the decoded labels
    smoothing = _range_of_other_classes(targets, classes)[0]
    at_sources = targets.gather(1, classes.clamp(max=targets.shape[1] - 1))
    own, partner = (at_sources - smoothing[:, None]).unbind(dim=1)
    is_blended = (labels > tolerance).all(dim=1).flatten(1).any(dim=1)
    is_determined = smoothing.isfinite() & (classes[:, 0] != classes[:, 1])
    agrees = (own / (own + partner) - batch.mixing_ratio[:, 0]).abs() <= tolerance
    return is_blended & is_determined & ~agrees


def _range_of_other_classes(targets: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest target over the classes of neither source, each (B,).

    If there is no such class, they are plus and minus infinity.
    """
    of_source = torch.zeros_like(targets, dtype=torch.bool)
    of_source.scatter_(1, classes.clamp(max=targets.shape[1] - 1), True)
    lowest = targets.masked_fill(of_source, torch.inf).amin(dim=1)
    return lowest, targets.masked_fill(of_source, -torch.inf).amax(dim=1)


def _tolerance(targets: Tensor) -> float:
    return max(TOLERANCE, ROUNDING_STEPS * torch.finfo(targets.dtype).eps)
