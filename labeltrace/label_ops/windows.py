"""Mixing by the kernels of convolutions, which slide over space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic, normalised

_SMALLEST_TAP = 1e-30
"""A zero tap's weight: it counts only where every other tap inside the image is zero as well."""


@label_arithmetic
def kernel(weights: Tensor, blocks: Sequence[tuple[int, bool]] = (), own: int = 0) -> Tensor:
    """The taps' weights of a convolution, (1, 1, *kernel): contract point 4.

    Args:
        weights: the convolution's weight (out, in / groups, *kernel), any floating dtype.
        blocks: where the weight's axis of inputs has positions, its factors: the size of each, and
            whether it is a position; those positions become the first dimension of the kernel.
        own: where each of N samples has a kernel of its own, how many output channels it has: the
            weight is (N * own, in / groups, *kernel), the result (N, 1, *kernel).

    They are ``mean_o(sum_i |W[o, i, t]| / sum_{i, t'} |W[o, i, t']|)``.
    """
    return _taps(_blocks_as_space(weights, blocks) if blocks else weights, own)


@label_arithmetic
def convolve(
    labels: Tensor,
    kernel: Tensor,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Tensor:
    """Mixing by a convolution's :func:`kernel`, renormalised over the taps inside the image.

    Args:
        labels: (N, *space, K), float32.
        kernel: (1, 1, *kernel), or (N, 1, *kernel) where each sample has its own, with an entry for
            each dimension of space, as the settings have.
        padding: (before, after) a dimension of space; padding carries nothing.

    A window that lies outside altogether takes the mean of all positions.
    """
    return slide(labels, kernel, stride, padding, dilation)


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
    """Mixing by a transposed convolution's kernel: as :func:`convolve`, by each output position.

    ``weights`` is (in, out / groups, *kernel); each output channel has a kernel of its own,
    over the input channels of its group.  A position that no input reaches takes the mean of
    all input positions.
    """
    transposed: Callable[..., Tensor] = (
        F.conv_transpose1d,
        F.conv_transpose2d,
        F.conv_transpose3d,
    )[len(stride) - 1]
    settings = (tuple(stride), tuple(padding), tuple(output_padding), 1, tuple(dilation))
    taps = _taps(weights.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1))
    sources = labels.shape[-1]
    images = labels.movedim(-1, 1).reshape(-1, 1, *labels.shape[1:-1])
    mixed = transposed(images, taps, None, *settings)
    reached = transposed(labels.new_ones(1, 1, *labels.shape[1:-1]), taps, None, *settings)
    mixed = renormalised(mixed, reached, images)
    return mixed.reshape(-1, sources, *mixed.shape[2:]).movedim(1, -1)


def _taps(weights: Tensor, own: int = 0) -> Tensor:
    """The taps' weights (kernels, 1, *kernel) of convolutions (kernels * own, in, *kernel)."""
    weights = weights.unflatten(0, (-1, own or weights.shape[0]))
    inside, sizes = weights.shape[2], weights.shape[3:]
    magnitudes = weights.detach().to(torch.float32).flatten(2).abs()  # a copy
    largest = magnitudes.amax(2, keepdim=True)  # of each output channel: so its sum is finite
    magnitudes = magnitudes.div_(torch.where(largest > 0, largest, 1))
    taps = normalised(magnitudes.unflatten(2, (inside, -1)).sum(2)).mean(1)
    return taps.reshape(-1, 1, *sizes).clamp_min(_SMALLEST_TAP)


def slide(
    labels: Tensor,
    taps: Tensor,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Tensor:
    """Slide kernels (1 or N, 1, *kernel) over (N, *space, K) and renormalise inside the image.

    A window that lies outside altogether takes the mean of all positions.
    """
    images = labels.movedim(-1, 1)
    settings = (tuple(stride), tuple(dilation))
    if any(before or after for before, after in padding):
        widths = [width for pair in reversed(padding) for width in pair]
        inside = F.pad(images.new_ones(taps.shape[0], 1, *images.shape[2:]), widths)
        mixed = _slide_over_maps(F.pad(images, widths), taps, *settings)
        mixed = renormalised(mixed, _slide_over_maps(inside, taps, *settings), images)
    else:
        whole = taps.sum(tuple(range(1, taps.dim())), keepdim=True)
        mixed = _slide_over_maps(images, taps / whole, *settings)
    return mixed.movedim(1, -1)


def _slide_over_maps(
    images: Tensor, taps: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Tensor:
    """Slide one kernel, or one for each image, over each map of (N, maps, *space).

    As channels of one image all maps go much faster on a processor than image by image.  A number
    of channels cannot be left open, though, when :func:`torch.compile` leaves the batch so.
    """
    convolution: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[len(stride) - 1]
    batch, maps = images.shape[:2]
    own = taps.shape[0] > 1
    apart = torch.compiler.is_compiling() and not own
    together = images if apart else images.reshape(1, -1, *images.shape[2:])
    count = together.shape[1]
    kernels = taps.repeat_interleave(maps, 0) if own else taps.expand(count, *taps.shape[1:])
    mixed = convolution(together, kernels, None, stride, 0, dilation, count)
    return mixed.reshape(batch, -1, *mixed.shape[2:])


def renormalised(mixed: Tensor, reached: Tensor, images: Tensor) -> Tensor:
    """``mixed`` over the weights that reached each position; where none did, the images' mean."""
    everywhere = images.flatten(2).mean(2).unflatten(1, (-1, *(1 for _ in images.shape[2:])))
    return torch.where(reached > 0, mixed / reached, everywhere)
