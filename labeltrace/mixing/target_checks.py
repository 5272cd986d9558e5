"""A mixer's own targets, compared with the sources found in its images."""

from __future__ import annotations

import torch
from torch import Tensor

from labeltrace.mixing.batch import MixedBatch
from labeltrace.mixing.probe import BYTE

TOLERANCE = 1e-4
ROUNDING_STEPS = 8


def gives_other_classes(targets: Tensor, classes: Tensor) -> Tensor:
    """Say which targets prefer a class that neither source has: (B,) bool.

    Label smoothing gives something to every class, but to all the same.

    Args:
        targets: (B, N) floating point, smoothed or not.
        classes: (B, 2) int64, of the image and its partner.
    """
    lowest, highest = _range_of_others(targets, classes)
    is_missing = (classes >= targets.shape[1]).any(dim=1)
    return is_missing | ~(highest - lowest <= _tolerance(targets))  # so that NaN is one as well


def gives_other_ratio(targets: Tensor, batch: MixedBatch) -> Tensor:
    """Say which images are blended at another ratio than their targets: (B,) bool.

    Pasted images are not compared: timm's `correct_lam=False` has targets of the box before it was
    clipped, on purpose. Nor are rows whose target does not tell: those of two sources of the same
    class, or of only two classes, where smoothing cannot be taken off.

    Args:
        targets: (B, N) floating point, smoothed or not.
        batch: the mixed batch, with the classes of the sources found and their labels.
    """
    classes, labels = batch.classes, batch.labels
    tolerance = _tolerance(targets)
    if not batch.images.is_floating_point():
        tolerance += 1 / BYTE  # how well a label tells the weight
    smoothing = _range_of_others(targets, classes)[0]
    at_sources = targets.gather(1, classes.clamp(max=targets.shape[1] - 1))
    own, partner = (at_sources - smoothing[:, None]).unbind(dim=1)
    is_blended = (labels > tolerance).all(dim=1).flatten(1).any(dim=1)
    tells = smoothing.isfinite() & (classes[:, 0] != classes[:, 1])
    agrees = (own / (own + partner) - batch.mixing_ratio[:, 0]).abs() <= tolerance
    return is_blended & tells & ~agrees


def _range_of_others(targets: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest target over the classes of neither source, twice (B,).

    Where there is no such class they are infinite and minus infinite.
    """
    of_source = torch.zeros_like(targets, dtype=torch.bool)
    of_source.scatter_(1, classes.clamp(max=targets.shape[1] - 1), True)
    lowest = targets.masked_fill(of_source, torch.inf).amin(dim=1)
    return lowest, targets.masked_fill(of_source, -torch.inf).amax(dim=1)


def _tolerance(targets: Tensor) -> float:
    return max(TOLERANCE, ROUNDING_STEPS * torch.finfo(targets.dtype).eps)
