"""Mixing by the kernels of convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic, normalize_rows
from labeltrace.layout import SlidingWindow, sliding_windows

_SMALLEST_TAP = 1e-30
"""The weight of a zero tap: it counts only where every other tap inside the image is zero too."""


@label_arithmetic
def kernel(
    weights: Tensor, channel_blocks: Sequence[tuple[int, bool]] = (), channels_per_sample: int = 0
) -> Tensor:
    """The weights of a convolution's taps t: the kernel that mixes labels (contract, point 4).

    `mean_o(sum_i |W[o, i, t]| / sum_{i, t'} |W[o, i, t']|)` over output channels o and input
    channels i.

    Args:
        weights: the weight of the convolution (out, in / groups, *kernel), any floating dtype.
        channel_blocks: the factors of the input's channel axis if it has positions: (size, whether
            it is a position). These positions become the first dimension of the kernel.
        channels_per_sample: the output channels per sample if each of N samples has its own
            kernel: the weight is (N * channels_per_sample, in / groups, *kernel).  0 for a shared
            kernel.

    Returns:
        (1, 1, *kernel), or (N, 1, *kernel) if each sample has its own kernel; float32.
    """
    return _taps(
        _blocks_as_space(weights, channel_blocks) if channel_blocks else weights,
        channels_per_sample,
    )


@label_arithmetic
def convolve(
    labels: Tensor,
    kernel: Tensor,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Tensor:
    """Mixing by the `kernel` of a convolution, renormalized over the taps inside the image.

    Args:
        labels: (N, *space, K), float32.
        kernel: (1, 1, *kernel), or (N, 1, *kernel) if each sample has its own. It has a dimension
            for each dimension of space, and so do the settings.
        stride: the distance between windows.
        padding: (before, after) each dimension; padding carries no label.
        dilation: the distance between the taps of a window.

    Returns:
        (N, *windows, K). A window with all taps outside the image takes the mean of all positions.
    """
    return slide(labels, kernel, sliding_windows(kernel.shape[2:], stride, padding, dilation))


def _blocks_as_space(weights: Tensor, blocks: Sequence[tuple[int, bool]]) -> Tensor:
    """(out, blocks and channels, *kernel) as (out, channels, blocks, *kernel)."""
    count = len(blocks)
    split = weights.unflatten(1, [size for size, _ in blocks])
    dims = sorted(range(1, count + 1), key=lambda dim: blocks[dim - 1][1])  # channels come first
    split = split.permute(0, *dims, *range(count + 1, split.dim()))
    positions = math.prod(size for size, is_position in blocks if is_position)
    return split.reshape(weights.shape[0], -1, positions, *weights.shape[2:])


@label_arithmetic
def convolve_transposed(
    labels: Tensor,
    weights: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """Mixing by the kernel of a transposed convolution, renormalized at each output position.

    Args:
        labels: (N, *space, K), float32.
        weights: the weight of the convolution (in, out / groups, *kernel). Each output channel has
            its own kernel over the input channels of its group; their mean is taken as in `kernel`.
        stride, padding, output_padding, dilation: one number for each dimension of space.
        groups: the groups of the convolution.

    Returns:
        (N, *space of the result, K). A position that no input reaches takes the mean of all input
        positions.
    """
    transposed: Callable[..., Tensor] = (
        F.conv_transpose1d,
        F.conv_transpose2d,
        F.conv_transpose3d,
    )[len(stride) - 1]
    settings = (tuple(stride), tuple(padding), tuple(output_padding), 1, tuple(dilation))
    taps = _taps(weights.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1))
    taps = taps.clamp_min(_SMALLEST_TAP)
    images = labels.movedim(-1, 1)
    mixed = transposed(images.reshape(-1, 1, *images.shape[2:]), taps, None, *settings)
    mixed = mixed.reshape(*images.shape[:2], *mixed.shape[2:])
    return _divide_by_sum(mixed, images).movedim(1, -1)


def _taps(weights: Tensor, channels_per_kernel: int = 0) -> Tensor:
    """The taps' weights (kernels, 1, *kernel).

    `weights` is (kernels * channels_per_kernel, in, *kernel); 0 means all channels.
    """
    weights = weights.unflatten(0, (-1, channels_per_kernel or weights.shape[0]))
    inside, sizes = weights.shape[2], weights.shape[3:]
    shares = normalize_rows(weights.detach().to(torch.float32).flatten(2))  # of each output channel
    if inside > 1:
        shares = shares.unflatten(2, (inside, -1)).sum(2)
    taps = shares.mean(1)
    return taps.reshape(-1, 1, *sizes)


def slide(labels: Tensor, taps: Tensor, windows: Sequence[SlidingWindow]) -> Tensor:
    """Slide kernels (1 or N, 1, *kernel) over (N, *space, K) and renormalize inside the image.

    A window with all taps outside the image takes the mean of all positions.
    """
    images = labels.movedim(-1, 1)
    taps = taps.clamp_min(_SMALLEST_TAP)  # a window has a weight wherever it has a tap inside
    mixed = _slide_over_maps(images, taps, windows)
    by_axis = zip(images.shape[2:], windows, strict=True)
    if all(_has_tap_inside(size, window) for size, window in by_axis):
        return mixed.div_(mixed.sum(1, keepdim=True)).movedim(1, -1)
    return _divide_by_sum(mixed, images).movedim(1, -1)


def _has_tap_inside(size: int, window: SlidingWindow) -> bool:
    """Whether it is certain that along one dimension every window has a tap inside the image.

    The first window must not end before the image, the last one must not begin after it, and no
    step from tap to tap may jump over it. An image of size 2 with padding (1, 1):

        index      -1  0  1  2
                    x        x      kernel 2, dilation 3: False, both taps are outside
                    x     x         kernel 2, dilation 2: True
                       x     x
    """
    return max(window.padding) <= (window.kernel - 1) * window.dilation and window.dilation <= size


def _slide_over_maps(images: Tensor, taps: Tensor, windows: Sequence[SlidingWindow]) -> Tensor:
    """Slide one kernel, or one for each image, over each map of (N, maps, *space).

    On a CPU it is much faster to treat all maps as the channels of one image. But the number of
    channels cannot be dynamic, as it would be when `torch.compile` makes the batch dynamic.
    """
    images, padding = _padded(images, windows)
    stride = tuple(window.stride for window in windows)
    dilation = tuple(window.dilation for window in windows)
    convolution: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[len(windows) - 1]
    batch, maps = images.shape[:2]
    one_kernel_each = taps.shape[0] > 1
    separate = torch.compiler.is_compiling() and not one_kernel_each
    joined = images if separate else images.reshape(1, -1, *images.shape[2:])
    count = joined.shape[1]
    if one_kernel_each:
        kernels = taps.repeat_interleave(maps, 0)
    else:
        kernels = taps.expand(count, *taps.shape[1:])
    mixed = convolution(joined, kernels, None, stride, padding, dilation, count)
    return mixed.reshape(batch, -1, *mixed.shape[2:])


def _padded(images: Tensor, windows: Sequence[SlidingWindow]) -> tuple[Tensor, tuple[int, ...]]:
    """The images, padded unless the convolution can pad them itself; and what it is to pad."""
    if all(0 <= window.padding[0] == window.padding[1] for window in windows):
        return images, tuple(window.symmetric_padding for window in windows)
    widths = [width for window in reversed(windows) for width in window.padding]
    return F.pad(images, widths), (0,) * len(windows)


def _divide_by_sum(mixed: Tensor, images: Tensor) -> Tensor:
    """`mixed` (N, K, *space) divided by its sum over K, the weights that reached each position.

    Labels sum to one, so their mixture sums to the weights that mixed them.
    """
    return renormalize(mixed, mixed.sum(1, keepdim=True), images)


def renormalize(mixed: Tensor, reached: Tensor, images: Tensor) -> Tensor:
    """`mixed` divided by the weights that reached each position; without any, the images' mean."""
    everywhere = images.flatten(2).mean(2).unflatten(1, (-1, *(1 for _ in images.shape[2:])))
    return torch.where(reached > 0, mixed / reached, everywhere)
