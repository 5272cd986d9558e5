"""Averages: residuals, concatenations along channels, means over positions and windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic, mean_of_last
from labeltrace.label_ops.windows import renormalised, slide


@label_arithmetic
def average(pieces: Sequence[Tensor], shares: Sequence[int] | None = None) -> Tensor:
    """``Norm(sum_i s_i Y_i)`` over broadcast fields: residuals, eq. 11, and concatenations.

    ``shares`` are not negative, and not all zero; a piece without channels has a share of zero.
    """
    shares = shares or [1] * len(pieces)
    mean, total = pieces[0], shares[0]
    for piece, share in zip(pieces[1:], shares[1:], strict=True):
        total += share
        mean = torch.lerp(mean, piece, share / total if share else 0.0)
    return mean


@label_arithmetic
def aggregate(labels: Tensor, count: int) -> Tensor:
    """The mean over the last ``count`` dimensions before K: spatial aggregation, Table 10."""
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
    """The mean over the positions of each window that lie inside the image.

    ``labels`` is (N, *space, K) with as many dimensions of space as ``kernel`` has entries.
    """
    if any(d != 1 for d in dilation):
        ones = labels.new_ones(1, 1, *kernel)
        windows = zip(labels.shape[1:-1], kernel, stride, padding, dilation, strict=True)
        widths = [_widths(*window, ceil_mode) for window in windows]
        return slide(labels, ones, stride, widths, dilation)
    average_pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    channels_first = labels.movedim(-1, 1)
    pooled = average_pool(
        channels_first, tuple(kernel), tuple(stride), tuple(padding), ceil_mode, False
    )
    return pooled.movedim(1, -1)


def _widths(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> tuple[int, int]:
    """Padding before and after, with what ``ceil_mode`` adds so that the last window is whole."""
    reach = dilation * (kernel - 1) + 1
    room = size + 2 * padding - reach
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1  # the last window would start beyond the image
    return padding, max((count - 1) * stride + reach - size - padding, 0)


@label_arithmetic
def fold(
    labels: Tensor,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Windows laid over one another, as by :func:`torch.nn.functional.fold`: their mean.

    ``labels`` is (N, positions in a window, windows, K), with ones where all share a label; the
    result is (N, *sizes, K).  What lands in the padding is lost.  A position on which nothing lands
    takes the mean of everything.
    """
    batch, sources = labels.shape[0], labels.shape[-1]
    spans = zip(sizes, kernel, stride, padding, dilation, strict=True)
    counts = [
        (size + 2 * pad - spacing * (taps - 1) - 1) // step + 1
        for size, taps, step, pad, spacing in spans
    ]
    labels = labels.expand(-1, math.prod(kernel), math.prod(counts), -1)
    windows = labels.movedim(-1, 1).flatten(0, 1)
    settings = (tuple(sizes), tuple(kernel), tuple(dilation), tuple(padding), tuple(stride))
    landed = F.fold(windows, *settings)
    reached = F.fold(torch.ones_like(windows[:1]), *settings)
    mixed = renormalised(landed, reached, windows[:, None])
    return mixed.reshape(batch, sources, *sizes).movedim(1, -1)


@label_arithmetic
def adaptive_pool(labels: Tensor, output_size: Sequence[int]) -> Tensor:
    """The mean over windows that tile the space of (N, *space, K) into ``output_size``."""
    pools: Sequence[Callable[..., Tensor]] = (
        F.adaptive_avg_pool1d,
        F.adaptive_avg_pool2d,
        F.adaptive_avg_pool3d,
    )
    pooled = pools[len(output_size) - 1](labels.movedim(-1, 1), tuple(output_size))
    return pooled.movedim(1, -1)
