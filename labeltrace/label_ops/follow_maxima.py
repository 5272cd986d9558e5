"""Largest and smallest values, whose labels are those of the positions that they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic

LABELS_AT_ONCE = 2**22
"""How many labels are gathered at a time: 16 MiB."""


@label_arithmetic
def follow_pool(
    labels: Tensor,
    values: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool = False,
) -> Tensor:
    """Max pooling as a mixing: each channel takes one position of the window.

    Each channel has a mixing matrix with a single one in each row; the matrices are averaged over
    channels (contract, point 4).

    Args:
        labels: (N, *space, K), float32.
        values: (N, channels, *space), the input of the pooling.
        kernel, stride, padding, dilation: one number for each dimension of space.
        ceil_mode: whether the last window may end outside the image.

    Returns:
        (N, *windows, K). A window in the padding takes the mean of all positions.
    """
    pool: Callable[..., tuple[Tensor, Tensor]] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[
        len(kernel) - 1
    ]
    settings = (list(kernel), list(stride), list(padding), list(dilation), ceil_mode)
    return _gather_by_index(labels, *pool(values, *settings, return_indices=True))


@label_arithmetic
def follow_adaptive_pool(labels: Tensor, values: Tensor, output_size: Sequence[int]) -> Tensor:
    """As `follow_pool`, over windows that divide the image into `output_size` positions."""
    pool: Callable[..., tuple[Tensor, Tensor]] = (
        F.adaptive_max_pool1d,
        F.adaptive_max_pool2d,
        F.adaptive_max_pool3d,
    )[len(output_size) - 1]
    return _gather_by_index(labels, *pool(values, list(output_size), return_indices=True))


def _gather_by_index(labels: Tensor, found: Tensor, places: Tensor) -> Tensor:
    """The mean over channels of the labels at `places`, flat indices of space (N, C, *windows).

    `found` holds the maxima. A window in the padding has the maximum minus infinity and takes the
    mean of all positions.
    """
    flat = labels.flatten(1, -2)
    count, sources = places.shape[1], labels.shape[-1]
    outside = (found == -torch.inf).flatten(2).unsqueeze(-1)
    indices = places.flatten(2).clamp(max=flat.shape[1] - 1)
    everywhere = flat.mean(1)[:, None, None]
    total = labels.new_zeros(*indices[:, 0].shape, sources)
    at_once = max(1, LABELS_AT_ONCE // max(1, total.numel()))
    for start in range(0, count, at_once):
        block = slice(start, start + at_once)
        rows = indices[:, block].flatten(1)[..., None].expand(-1, -1, sources)
        picked = flat.gather(1, rows).unflatten(1, (-1, total.shape[1]))
        total += torch.where(outside[:, block], everywhere, picked).sum(1)
    return (total / count).unflatten(1, places.shape[2:])


@label_arithmetic
def follow_extreme(
    labels: Tensor,
    values: Tensor,
    dims: Sequence[int],
    varying: Sequence[int],
    channels: Sequence[int],
    largest: bool,
    keep: bool = False,
) -> Tensor:
    """The labels of the largest or smallest values over `dims`; of equal values the first.

    Args:
        labels: a field (positions..., K), float32.
        values: the tensor that is reduced.
        dims: the axes that are reduced, in ascending order.
        varying: the axes of `values` that are the dimensions of `labels`, in ascending order.
        channels: the axes of channels; labels are averaged over those that are not reduced.
        largest: whether the largest value is taken, or else the smallest.
        keep: whether reduced axes stay, with size one.
    """
    kept = [dim for dim in range(values.dim()) if dim not in dims]
    for dim in range(values.dim()):
        if dim not in varying:
            labels = labels.unsqueeze(dim)
    shape = [values.shape[dim] if dim in dims else -1 for dim in range(values.dim())]
    labels = labels.expand(*shape, -1).permute(*kept, *dims, -1).flatten(len(kept), -2)
    ordered = values.permute(*kept, *dims).flatten(len(kept))
    places = ordered.argmax(-1) if largest else ordered.argmin(-1)
    picked = labels.take_along_dim(places[..., None, None], -2).squeeze(-2)
    averaged = [index for index, dim in enumerate(kept) if dim in channels]
    if keep:
        for dim in dims:
            picked = picked.unsqueeze(dim)
        averaged = [dim for dim in kept if dim in channels]
    return picked.mean(averaged) if averaged else picked
