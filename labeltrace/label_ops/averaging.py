"""Averages: residuals, concatenations along channels, means over positions and windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic, mean_of_last
from labeltrace.label_ops.convolution import renormalize, slide
from labeltrace.layout import SlidingWindow, sliding_windows


@label_arithmetic
def average(pieces: Sequence[Tensor], shares: Sequence[int] | None = None) -> Tensor:
    """`Norm(sum_i s_i Y_i)` over broadcast fields: residuals (eq. 11) and concatenations.

    `shares` are not negative, and not all are zero; a piece without channels has share zero.
    """
    shares = shares or [1] * len(pieces)
    mean, total = pieces[0], shares[0]
    for piece, share in zip(pieces[1:], shares[1:], strict=True):
        total += share
        mean = torch.lerp(mean, piece, share / total if share else 0.0)
    return mean


@label_arithmetic
def aggregate(labels: Tensor, count: int) -> Tensor:
    """The mean over the last `count` dimensions before K: spatial aggregation (Table 10)."""
    return mean_of_last(labels, count)


@label_arithmetic
def pool(
    labels: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool = False,
) -> Tensor:
    """The mean over the positions of each window that are inside the image.

    Args:
        labels: (N, *space, K), float32.
        kernel, stride, padding, dilation: one number for each dimension of space.
        ceil_mode: whether the last window may end outside the image.

    Returns:
        (N, *windows, K).
    """
    if any(d != 1 for d in dilation):
        windows = [
            _padded_to_last_window(window, size, ceil_mode)
            for window, size in zip(
                sliding_windows(kernel, stride, padding, dilation), labels.shape[1:-1], strict=True
            )
        ]
        return slide(labels, labels.new_ones(1, 1, *kernel), windows)
    average_pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    channels_first = labels.movedim(-1, 1)
    pooled = average_pool(
        channels_first, tuple(kernel), tuple(stride), tuple(padding), ceil_mode, False
    )
    return pooled.movedim(1, -1)


def _padded_to_last_window(window: SlidingWindow, size: int, ceil_mode: bool) -> SlidingWindow:
    """The window with as much padding after the axis as the last window needs.

    With `ceil_mode`, `SlidingWindow(2, stride=2)` on an axis of size 5 gets the padding (0, 1):

        index       0  1  2  3  4  5
        window 0    x  x
        window 1          x  x
        window 2                x  x
    """
    before, _ = window.padding
    count = window.count(size)
    if ceil_mode:
        room = size + sum(window.padding) - window.span
        count = -(-room // window.stride) + 1
        if (count - 1) * window.stride >= size + before:
            count -= 1  # the last window would start after the image
    needed = (count - 1) * window.stride + window.span - size - before
    return replace(window, padding=(before, max(needed, 0)))


@label_arithmetic
def fold(
    labels: Tensor,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Overlapping windows put back on a map, as `torch.nn.functional.fold` does: their mean.

    Args:
        labels: (N, positions in a window, windows, K), float32; a dimension of size one where all
            have the same label.
        sizes: the size of each dimension of the map.
        kernel, stride, padding, dilation: one number for each dimension of the map.

    Returns:
        (N, *sizes, K). Labels in the padding are dropped. A position that is in no window takes
        the mean of all labels.
    """
    batch, sources = labels.shape[0], labels.shape[-1]
    windows = sliding_windows(kernel, stride, padding, dilation)
    counts = [window.count(size) for window, size in zip(windows, sizes, strict=True)]
    labels = labels.expand(-1, math.prod(kernel), math.prod(counts), -1)
    columns = labels.movedim(-1, 1).flatten(0, 1)
    settings = (tuple(sizes), tuple(kernel), tuple(dilation), tuple(padding), tuple(stride))
    summed = F.fold(columns, *settings)
    reached = F.fold(torch.ones_like(columns[:1]), *settings)
    mixed = renormalize(summed, reached, columns[:, None])
    return mixed.reshape(batch, sources, *sizes).movedim(1, -1)


@label_arithmetic
def adaptive_pool(labels: Tensor, output_size: Sequence[int]) -> Tensor:
    """The mean over windows that divide the space of (N, *space, K) into `output_size`."""
    pools: Sequence[Callable[..., Tensor]] = (
        F.adaptive_avg_pool1d,
        F.adaptive_avg_pool2d,
        F.adaptive_avg_pool3d,
    )
    pooled = pools[len(output_size) - 1](labels.movedim(-1, 1), tuple(output_size))
    return pooled.movedim(1, -1)
