"""A mixer's own targets, compared with the sources found in its images."""

from __future__ import annotations

import torch
from torch import Tensor

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


def gives_other_ratio(targets: Tensor, classes: Tensor, weights: Tensor, rounding: float) -> Tensor:
    """Say which images are blended at another ratio than their targets: (B,) bool.

    Pasted images are not compared: timm's `correct_lam=False` has targets of the box before it was
    clipped, on purpose. Nor are rows whose target does not tell: those of two sources of the same
    class, or of only two classes, where smoothing cannot be taken off.

    Args:
        targets: (B, N) floating point, smoothed or not.
        classes: (B, 2) int64, of the image and its partner.
        weights: (B, 2, H, W), of the image and its partner.
        rounding: how far a weight may be off.
    """
    smoothing = _range_of_others(targets, classes)[0]
    own, partner = _at(targets, classes).sub(smoothing[:, None]).unbind(dim=1)
    tolerance = _tolerance(targets) + 2 * rounding
    is_blended = (weights > tolerance).all(dim=1).flatten(1).any(dim=1)
    tells = smoothing.isfinite() & (classes[:, 0] != classes[:, 1])
    ratio = weights[:, 0].flatten(1).mean(dim=1)
    agrees = (own / (own + partner) - ratio).abs() <= tolerance
    return is_blended & tells & ~agrees


def _range_of_others(targets: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest target over the classes of neither source, twice (B,).

    Where there is no such class they are infinite and minus infinite.
    """
    of_source = torch.zeros_like(targets, dtype=torch.bool)
    of_source.scatter_(1, classes.clamp(max=targets.shape[1] - 1), True)
    lowest = targets.masked_fill(of_source, torch.inf).amin(dim=1)
    return lowest, targets.masked_fill(of_source, -torch.inf).amax(dim=1)


def _at(targets: Tensor, classes: Tensor) -> Tensor:
    return targets.gather(1, classes.clamp(max=targets.shape[1] - 1))


def _tolerance(targets: Tensor) -> float:
    return max(TOLERANCE, ROUNDING_STEPS * torch.finfo(targets.dtype).eps)
