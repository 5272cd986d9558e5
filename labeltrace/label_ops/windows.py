"""Mixing by the kernels of convolutions, which slide over space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic, normalize_rows

_SMALLEST_TAP = 1e-30
"""A zero tap's weight: it counts only where every other tap inside the image is zero as well."""


@label_arithmetic
def kernel(
    weights: Tensor, channel_blocks: Sequence[tuple[int, bool]] = (), channels_per_sample: int = 0
) -> Tensor:
    """The taps' weights of a convolution, (1, 1, *kernel): contract point 4.

    Args:
        weights: the convolution's weight (out, in / groups, *kernel), any floating dtype.
        blocks: where the weight's axis of inputs has positions, its factors: the size of each, and
            whether it is a position; those positions become the first dimension of the kernel.
        own: where each of N samples has a kernel of its own, how many output channels it has: the
            weight is (N * own, in / groups, *kernel), the result (N, 1, *kernel).

    They are ``mean_o(sum_i |W[o, i, t]| / sum_{i, t'} |W[o, i, t']|)``.
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
    taps = taps.clamp_min(_SMALLEST_TAP)
    images = labels.movedim(-1, 1)
    mixed = transposed(images.reshape(-1, 1, *images.shape[2:]), taps, None, *settings)
    mixed = mixed.reshape(*images.shape[:2], *mixed.shape[2:])
    return _over_its_sum(mixed, images).movedim(1, -1)


def _taps(weights: Tensor, own: int = 0) -> Tensor:
    """The taps' weights (kernels, 1, *kernel) of convolutions (kernels * own, in, *kernel)."""
    weights = weights.unflatten(0, (-1, own or weights.shape[0]))
    inside, sizes = weights.shape[2], weights.shape[3:]
    shares = normalize_rows(weights.detach().to(torch.float32).flatten(2))  # of each output channel
    if inside > 1:
        shares = shares.unflatten(2, (inside, -1)).sum(2)
    taps = shares.mean(1)
    return taps.reshape(-1, 1, *sizes)


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
    same = all(0 <= before == after for before, after in padding)
    widths = [width for pair in reversed(padding) for width in pair]
    padded = images if same else F.pad(images, widths)
    own_padding = tuple(before if same else 0 for before, _ in padding)
    taps = taps.clamp_min(_SMALLEST_TAP)  # a window has a weight wherever it has a tap inside
    mixed = _slide_over_maps(padded, taps, tuple(stride), own_padding, tuple(dilation))
    windows = zip(images.shape[2:], taps.shape[2:], padding, dilation, strict=True)
    if all(_reaches_everywhere(*window) for window in windows):
        return mixed.div_(mixed.sum(1, keepdim=True)).movedim(1, -1)
    return _over_its_sum(mixed, images).movedim(1, -1)


def _reaches_everywhere(size: int, taps: int, padding: tuple[int, int], dilation: int) -> bool:
    """Whether it is certain that along one dimension every window has a tap inside the image.

    The first window does not end before it, the last one does not begin behind it, and no step from
    tap to tap leaps over it.
    """
    return max(padding) <= (taps - 1) * dilation and dilation <= size


def _slide_over_maps(
    images: Tensor,
    taps: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
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
    mixed = convolution(together, kernels, None, stride, padding, dilation, count)
    return mixed.reshape(batch, -1, *mixed.shape[2:])


def _over_its_sum(mixed: Tensor, images: Tensor) -> Tensor:
    """``mixed`` (N, K, *space) over its sum, the weights that reached a position.

    Labels sum to one, so their mixture sums to the weights that mixed them.
    """
    return renormalised(mixed, mixed.sum(1, keepdim=True), images)


def renormalised(mixed: Tensor, reached: Tensor, images: Tensor) -> Tensor:
    """``mixed`` over the weights that reached each position; where none did, the images' mean."""
    everywhere = images.flatten(2).mean(2).unflatten(1, (-1, *(1 for _ in images.shape[2:])))
    return torch.where(reached > 0, mixed / reached, everywhere)
