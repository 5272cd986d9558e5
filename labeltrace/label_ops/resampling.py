"""Mixing by the weights of an interpolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic, normalize_rows

# The ATen operators: they take both the sizes and the factors that a model gives.
_STEPS: dict[str, Callable[..., Tensor]] = {
    "nearest": torch.ops.aten.upsample_nearest2d.default,
    "nearest-exact": torch.ops.aten._upsample_nearest_exact2d.default,
}
_SMOOTH: dict[tuple[str, bool], Callable[..., Tensor]] = {
    ("linear", False): torch.ops.aten.upsample_bilinear2d.default,
    ("linear", True): torch.ops.aten._upsample_bilinear2d_aa.default,
    ("cubic", False): torch.ops.aten.upsample_bicubic2d.default,
    ("cubic", True): torch.ops.aten._upsample_bicubic2d_aa.default,
}


@label_arithmetic
def resample(
    labels: Tensor,
    sizes: Sequence[int],
    mode: str,
    scales: Sequence[float | None] | None = None,
    align_corners: bool = False,
    antialias: bool = False,
) -> Tensor:
    """Mixing by the weights of an interpolation, one dimension of space after the other.

    Negative weights, as cubic interpolation has, count by magnitude.

    Args:
        labels: (N, *space, K), float32.
        sizes: the sizes of the result, one for each dimension of space.
        mode: `"nearest"`, `"nearest-exact"`, `"linear"` or `"cubic"`.
        scales: the factors that the model gives, or None for `sizes` divided by the input's.
        align_corners, antialias: as in `torch.nn.functional.interpolate`.

    Returns:
        (N, *sizes, K).
    """
    for index, size in enumerate(sizes):
        matrix = _interpolation_matrix(
            labels.shape[1 + index],
            size,
            mode,
            scales[index] if scales else None,
            align_corners,
            antialias,
            labels.device,
        )
        moved = labels.movedim(1 + index, -2)
        labels = (matrix @ moved).movedim(-2, 1 + index)
    return labels


def _interpolation_matrix(
    size: int,
    target: int,
    mode: str,
    scale: float | None,
    align_corners: bool,
    antialias: bool,
    device: torch.device,
) -> Tensor:
    """`Norm(W)` of the weights W (target, size) with which an interpolation mixes one axis."""
    # A row, not a column: torch filters a column of width one wrongly with antialias.
    rows = torch.eye(size, device=device).reshape(size, 1, 1, size)
    if mode in _STEPS:
        moved = _STEPS[mode](rows, [1, target], None, scale)
    else:
        moved = _SMOOTH[mode, antialias](rows, [1, target], align_corners, None, scale)
    return normalize_rows(moved.reshape(size, -1).T)
