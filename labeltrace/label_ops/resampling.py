"""Mixing by the weights of an interpolation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic, normalised


@label_arithmetic
def resample(
    labels: Tensor,
    sizes: Sequence[int],
    mode: str,
    scales: Sequence[float | None] | None = None,
    align_corners: bool = False,
    antialias: bool = False,
) -> Tensor:
    """Interpolation of (N, *space, K) to ``sizes``; negative weights (cubic) count by magnitude."""
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
    """Norm of the weights (target, size) with which an interpolation mixes one axis."""
    planes = {"linear": "bilinear", "cubic": "bicubic"}
    # A row, not a column: torch filters a column of width one wrongly with antialias.
    rows = torch.eye(size, device=device).reshape(size, 1, 1, size)
    settings = {"align_corners": align_corners} if mode in planes else {}
    if antialias:
        settings["antialias"] = True
    if scale is None:
        moved = F.interpolate(rows, size=(1, target), mode=planes.get(mode, mode), **settings)
    else:
        moved = F.interpolate(
            rows, scale_factor=(1.0, scale), mode=planes.get(mode, mode), **settings
        )
    return normalised(moved.reshape(size, -1).T)
