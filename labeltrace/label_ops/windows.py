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
def convolve(
    labels: Tensor,
    weights: Tensor,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    blocks: Sequence[tuple[int, bool]] = (),
) -> Tensor:
    """Mixing by a convolution's kernel: contract point 4.

    Args:
        labels: (N, *space, K), float32.
        weights: the convolution's weight (out, in / groups, *kernel), any floating dtype.
        padding: (before, after) a dimension of space; padding carries nothing.
        blocks: where the weight's axis of inputs has positions, its factors: the size of each, and
            whether it is a position; those positions are the first dimension of space, and the
            settings have an entry for it.

    The taps' weights are ``mean_o(sum_i |W[o, i, t]| / sum_{i, t'} |W[o, i, t']|)``, renormalised
    at each position over the taps inside the image.
    """
    if blocks:
        weights = _blocks_as_space(weights, blocks)
    return slide(labels, _taps(weights), stride, padding, dilation)


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


def _taps(weights: Tensor) -> Tensor:
    """The taps' weights (1, 1, *kernel) of a convolution (out, in / groups, *kernel)."""
    taps = _shrunk(weights.detach().to(torch.float32).flatten(2)).abs().sum(1)
    taps = normalised(taps).mean(0).reshape(1, 1, *weights.shape[2:])
    return taps.clamp_min(_SMALLEST_TAP)


def _shrunk(taps: Tensor) -> Tensor:
    """Each output channel's weights divided by their largest, so that their sum is finite."""
    largest = taps.abs().amax((1, 2), keepdim=True)
    return torch.where(largest > 0, taps / largest, taps)


def slide(
    labels: Tensor,
    taps: Tensor,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Tensor:
    """Slide one kernel (1, 1, *kernel) over (N, *space, K) and renormalise inside the image.

    A window that lies outside altogether takes the mean of all positions.
    """
    convolution: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[len(stride) - 1]
    settings = (tuple(stride), 0, tuple(dilation))
    sources = labels.shape[-1]
    images = labels.movedim(-1, 1).reshape(-1, 1, *labels.shape[1:-1])
    if any(before or after for before, after in padding):
        widths = [width for pair in reversed(padding) for width in pair]
        mixed = convolution(F.pad(images, widths), taps, None, *settings)
        inside = F.pad(labels.new_ones(1, 1, *labels.shape[1:-1]), widths)
        mixed = renormalised(mixed, convolution(inside, taps, None, *settings), images)
    else:
        mixed = convolution(images, taps / taps.sum(), None, *settings)
    return mixed.reshape(-1, sources, *mixed.shape[2:]).movedim(1, -1)


def renormalised(mixed: Tensor, reached: Tensor, images: Tensor) -> Tensor:
    """``mixed`` over the weights that reached each position; where none did, the images' mean."""
    everywhere = images.flatten(2).mean(2).reshape(-1, 1, *(1 for _ in images.shape[2:]))
    return torch.where(reached > 0, mixed / reached, everywhere)
