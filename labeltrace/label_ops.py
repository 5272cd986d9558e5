"""The runtime label algebra: what the label graph computes, on tensors.

A label field is a float32 tensor (positions..., K) whose last dimension, the distribution over K
sources, sums to one.  Every function here keeps that so, draws no random numbers, records no
gradient and computes in float32 also where autocast is on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

P = ParamSpec("P")

_SMALLEST_TAP = 1e-30
"""A zero tap's weight: it counts only where every other tap inside the image is zero as well."""


def label_arithmetic(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Run a label function without gradient and outside autocast."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device_type = _first_tensor(args).device.type
        with torch.no_grad(), torch.autocast(device_type, enabled=False):
            return function(*args, **kwargs)

    return wrapped


def _first_tensor(values: Sequence[object]) -> Tensor:
    for value in values:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, (list, tuple)):
            return _first_tensor(value)
    raise TypeError("a label function was called without a tensor")


# Ends of the label graph.


@label_arithmetic
def read_image(label_image: Tensor, sizes: Sequence[int]) -> Tensor:
    """A label image (B, K, *sizes or ones) as a field (B, *sizes, K), without copying it."""
    labels = label_image.detach().to(torch.float32)
    labels = labels.expand(*labels.shape[:2], *sizes)
    return labels.movedim(1, -1)


@label_arithmetic
def prior(labels: Tensor) -> Tensor:
    """The mean over all positions of a field (B, ..., K): (B, K), contract point 3."""
    return labels.flatten(1, -2).mean(1) if labels.dim() > 2 else labels


@label_arithmetic
def write_output(labels: Tensor, sizes: Sequence[int], dim: int) -> Tensor:
    """A field as the label of an output: (positions..., K) with K moved to ``dim``.

    ``sizes`` has the output's sizes without its channel axis: positions that share a label are
    repeated; -1 keeps a dimension's size.
    """
    labels = labels.expand(*sizes, labels.shape[-1])
    return labels.movedim(-1, dim).contiguous()


# Moving positions.


@label_arithmetic
def relayout(
    labels: Tensor,
    split: Sequence[int] | None = None,
    order: Sequence[int] | None = None,
    merge: Sequence[int] | None = None,
) -> Tensor:
    """Split the dimensions of a field into ``split``, put them in ``order``, merge into ``merge``.

    Sizes leave out K, which stays last; one of them may be -1.
    """
    sources = labels.shape[-1]
    if split is not None:
        labels = labels.reshape(*split, sources)
    if order is not None:
        labels = labels.permute(*order, labels.dim() - 1)
    if merge is not None:
        labels = labels.reshape(*merge, sources)
    return labels


@label_arithmetic
def cut(labels: Tensor, dim: int, start: int, end: int, step: int = 1) -> Tensor:
    """``start:end:step`` of dimension ``dim``."""
    if step == 1:
        return labels.narrow(dim, start, end - start)
    return torch.ops.aten.slice(labels, dim, start, end, step)


@label_arithmetic
def select(labels: Tensor, dim: int, index: int) -> Tensor:
    """Index ``index`` of dimension ``dim``, which goes."""
    return labels.select(dim, index)


@label_arithmetic
def roll(labels: Tensor, shifts: Sequence[int], dims: Sequence[int]) -> Tensor:
    """Dimensions rolled as by :func:`torch.roll`."""
    return labels.roll(tuple(shifts), tuple(dims))


@label_arithmetic
def flip(labels: Tensor, dims: Sequence[int]) -> Tensor:
    """Dimensions reversed as by :func:`torch.flip`."""
    return labels.flip(tuple(dims))


@label_arithmetic
def take(labels: Tensor, dim: int, index: Tensor) -> Tensor:
    """Indices of dimension ``dim``; an index of several dimensions is flattened."""
    if index.dtype == torch.bool:
        index = index.nonzero().squeeze(-1)
    index = index.flatten()
    return labels.index_select(dim, torch.where(index < 0, index + labels.shape[dim], index))


@label_arithmetic
def pad(
    labels: Tensor,
    prior: Tensor,
    widths: Sequence[tuple[int, int]],
    mode: str = "prior",
    batch_dim: int = 0,
) -> Tensor:
    """New positions around a field, ``widths`` (before, after) a dimension; negative ones crop.

    They carry the prior (B, K), contract point 3, or copies (``"reflect"``, ``"replicate"``,
    ``"circular"``).
    """
    for dim, (before, after) in enumerate(widths):
        if before or after:
            labels = _pad_one(labels, prior, dim, before, after, mode, batch_dim)
    return labels


def _pad_one(
    labels: Tensor, prior: Tensor, dim: int, before: int, after: int, mode: str, batch_dim: int
) -> Tensor:
    size = labels.shape[dim]
    if mode != "prior":
        index = _padded_index(size, before, after, mode, labels.device)
        return labels.index_select(dim, index)
    kept = labels.narrow(dim, max(-before, 0), size + min(before, 0) + min(after, 0))
    pieces = [_spread_prior(prior, labels, dim, before, batch_dim)] if before > 0 else []
    pieces.append(kept)
    if after > 0:
        pieces.append(_spread_prior(prior, labels, dim, after, batch_dim))
    return torch.cat(pieces, dim) if len(pieces) > 1 else kept


def _padded_index(size: int, before: int, after: int, mode: str, device: torch.device) -> Tensor:
    index = torch.arange(-before, size + after, device=device)
    if mode == "circular":
        return index % size
    if mode == "replicate":
        return index.clamp(0, size - 1)
    if mode == "reflect":
        index = index.abs()
        return torch.where(index >= size, 2 * (size - 1) - index, index)
    raise ValueError(f"unknown padding mode {mode!r}")


def _spread_prior(prior: Tensor, like: Tensor, dim: int, size: int, batch_dim: int) -> Tensor:
    """The prior (B, K) at ``size`` new positions of dimension ``dim`` of a field."""
    shape = [1] * like.dim()
    shape[batch_dim], shape[-1] = prior.shape
    target = list(like.shape)
    target[dim] = size
    return prior.reshape(shape).expand(target)


@label_arithmetic
def join(pieces: Sequence[Tensor], sizes: Sequence[int], dim: int, batch_dim: int = 0) -> Tensor:
    """Fields one after the other along ``dim``.

    A piece of two dimensions where others have more is the prior (B, K), spread over its size.
    """
    like = max(pieces, key=Tensor.dim)
    whole = [
        _spread_prior(piece, like, dim, size, batch_dim)
        if piece.dim() < like.dim()
        else _widen(piece, like, dim, size)
        for piece, size in zip(pieces, sizes, strict=True)
    ]
    return torch.cat(whole, dim)


def _widen(piece: Tensor, like: Tensor, dim: int, size: int) -> Tensor:
    """A piece repeated to ``size`` positions along ``dim``."""
    target = list(piece.shape)
    target[dim] = size
    return piece.expand(target)


# Averages.


@label_arithmetic
def average(pieces: Sequence[Tensor], shares: Sequence[int] | None = None) -> Tensor:
    """``Norm(sum_i s_i Y_i)`` over broadcast fields: residuals, eq. 11, and concatenations."""
    shares = shares or [1] * len(pieces)
    total = sum(shares)
    result = pieces[0] * (shares[0] / total)
    for piece, share in zip(pieces[1:], shares[1:], strict=True):
        result = torch.add(result, piece, alpha=share / total)
    return result


@label_arithmetic
def aggregate(labels: Tensor, count: int) -> Tensor:
    """The mean over the last ``count`` dimensions before K: spatial aggregation, Table 10."""
    return labels.mean(tuple(range(-1 - count, -1)))


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
        return _slide(labels, ones, stride, [(p, p) for p in padding], dilation)
    average_pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    channels_first = labels.movedim(-1, 1)
    pooled = average_pool(
        channels_first, tuple(kernel), tuple(stride), tuple(padding), ceil_mode, False
    )
    return pooled.movedim(1, -1)


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


# Mixing.


@label_arithmetic
def mix(labels: Tensor, weights: Tensor, notation: str, **sizes: int) -> Tensor:
    """``Norm(W)·Y``: eq. 7, and eq. 9 where several matrices are averaged.

    Args:
        labels: a field (positions..., K), float32.
        weights: the mixing matrices, any floating dtype.
        notation: the axes by name, ``"b h q k, b k -> b q"``: weights, labels (K left out) and
            result.  Names that only the weights have are matrices to average (heads); names that
            only weights and labels share are mixed away; names of weights and result are rows.
            An axis made of several factors is in parentheses, ``"(b h) q k"``.
        sizes: the sizes of all but one of the names in each pair of parentheses.

    Rows that sum to zero, or that have entries that are not finite, mix equally.
    """
    plan = _mixing_plan(notation)
    matrices, rows = _matrices(weights.detach().to(torch.float32), plan, sizes)
    return _apply_matrices(_normalised(matrices).mean(-3), labels, plan, rows)


@label_arithmetic
def attend(
    labels: Tensor,
    query: Tensor,
    key: Tensor,
    notation: str,
    mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    grouped_heads: bool = False,
    **sizes: int,
) -> Tensor:
    """:func:`mix` with the probabilities of scaled dot-product attention, before dropout.

    ``query`` is (..., L, E), ``key`` (..., S, E), ``mask`` a boolean or additive one that
    broadcasts to (..., L, S); the arguments mean what they mean to
    :func:`torch.nn.functional.scaled_dot_product_attention`.  Rows that are masked whole mix
    equally.
    """
    query, key = query.detach().to(torch.float32), key.detach().to(torch.float32)
    if grouped_heads:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ key.transpose(-2, -1)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -math.inf)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask.detach()
    plan = _mixing_plan(notation)
    matrices, rows = _matrices(scores.softmax(-1), plan, sizes)
    whole = matrices.sum(-1, keepdim=True)
    matrices = torch.where(whole > 0, matrices, 1 / matrices.shape[-1])  # NaN: masked whole
    return _apply_matrices(matrices.mean(-3), labels, plan, rows)


def _normalised(matrices: Tensor) -> Tensor:
    """Norm: absolute values, each row divided by its sum; rows without a sum mix equally."""
    matrices = matrices.abs()
    largest = matrices.amax(-1, keepdim=True)
    matrices = matrices / largest  # so that neither huge nor denormal rows lose their sum
    whole = matrices.sum(-1, keepdim=True)
    usable = (largest > 0) & torch.isfinite(whole)
    return torch.where(usable, matrices / whole, 1 / matrices.shape[-1])


@dataclass(frozen=True, slots=True)
class _MixingPlan:
    """A parsed notation: how to bring weights and labels into the shape of a matrix product."""

    weight_axes: tuple[tuple[str, ...], ...]
    label_names: tuple[str, ...]
    batch: tuple[str, ...]
    averaged: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    free: tuple[str, ...]
    result: tuple[str, ...]

    @property
    def weight_names(self) -> tuple[str, ...]:
        return tuple(name for axis in self.weight_axes for name in axis)


@functools.cache
def _mixing_plan(notation: str) -> _MixingPlan:
    inputs, result_text = notation.split("->")
    weight_text, label_text = inputs.split(",")
    weight_axes = _parse_axes(weight_text)
    weights = [name for axis in weight_axes for name in axis]
    labels = tuple(label_text.split())
    result = tuple(result_text.split())
    return _MixingPlan(
        weight_axes=weight_axes,
        label_names=labels,
        batch=tuple(n for n in weights if n in labels and n in result),
        averaged=tuple(n for n in weights if n not in labels and n not in result),
        rows=tuple(n for n in weights if n not in labels and n in result),
        columns=tuple(n for n in weights if n in labels and n not in result),
        free=tuple(n for n in labels if n not in weights),
        result=result,
    )


def _parse_axes(text: str) -> tuple[tuple[str, ...], ...]:
    axes: list[tuple[str, ...]] = []
    inside: list[str] | None = None
    for word in text.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(":
            inside = []
        elif word == ")":
            axes.append(tuple(inside or ()))
            inside = None
        elif inside is not None:
            inside.append(word)
        else:
            axes.append((word,))
    return tuple(axes)


def _matrices(
    weights: Tensor, plan: _MixingPlan, sizes: dict[str, int]
) -> tuple[Tensor, list[int]]:
    """The weights as (batch..., averaged, rows, columns), and the sizes of the row axes.

    The averaged axes are flattened into one, and so are rows and columns.
    """
    shape: list[int] = []
    for axis, size in zip(plan.weight_axes, weights.shape, strict=True):
        known = math.prod(sizes.get(name, 1) for name in axis)
        shape.extend(sizes[name] if name in sizes else size // known for name in axis)
    names = plan.weight_names
    order = (*plan.batch, *plan.averaged, *plan.rows, *plan.columns)
    weights = weights.reshape(shape).permute([names.index(name) for name in order])
    extents = dict(zip(names, shape, strict=True))
    rows = [extents[name] for name in plan.rows]
    flat = (
        *(extents[name] for name in plan.batch),
        math.prod(extents[name] for name in plan.averaged),
        math.prod(rows),
        math.prod(extents[name] for name in plan.columns),
    )
    return weights.reshape(flat), rows


def _apply_matrices(matrices: Tensor, labels: Tensor, plan: _MixingPlan, rows: list[int]) -> Tensor:
    """(batch..., rows, columns) times the labels, brought into the order of the result."""
    names = plan.label_names
    sources = labels.shape[-1]
    extents = dict(zip(names, labels.shape[:-1], strict=True))
    order = (*plan.batch, *plan.columns, *plan.free)
    labels = labels.permute(*(names.index(name) for name in order), len(names))
    batch = [extents[name] for name in plan.batch]
    columns = math.prod(extents[name] for name in plan.columns)
    free = [extents[name] for name in plan.free]
    mixed = matrices @ labels.reshape(*batch, columns, math.prod(free) * sources)
    mixed = mixed.reshape(*batch, *rows, *free, sources)
    produced = (*plan.batch, *plan.rows, *plan.free)
    return mixed.permute(*(produced.index(name) for name in plan.result), len(produced))


@label_arithmetic
def convolve(
    labels: Tensor,
    weights: Tensor,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Tensor:
    """Mixing by a convolution's kernel: contract point 4.

    Args:
        labels: (N, *space, K), float32.
        weights: the convolution's weight (out, in / groups, *kernel), any floating dtype.
        padding: (before, after) a dimension of space; padding carries nothing.

    The taps' weights are ``mean_o(sum_i |W[o, i, t]| / sum_{i, t'} |W[o, i, t']|)``, renormalised
    at each position over the taps inside the image.
    """
    return _slide(labels, _taps(weights), stride, padding, dilation)


@label_arithmetic
def convolve_transposed(
    labels: Tensor,
    weights: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Mixing by a transposed convolution's kernel: as :func:`convolve`, by each output position.

    ``weights`` is (in, out / groups, *kernel).  A position that no input reaches takes the mean of
    all input positions.
    """
    transposed: Callable[..., Tensor] = (
        F.conv_transpose1d,
        F.conv_transpose2d,
        F.conv_transpose3d,
    )[len(stride) - 1]
    settings = (tuple(stride), tuple(padding), tuple(output_padding), 1, tuple(dilation))
    taps = _taps(weights.transpose(0, 1))
    sources = labels.shape[-1]
    images = labels.movedim(-1, 1).reshape(-1, 1, *labels.shape[1:-1])
    mixed = transposed(images, taps, None, *settings)
    reached = transposed(labels.new_ones(1, 1, *labels.shape[1:-1]), taps, None, *settings)
    everywhere = images.flatten(2).mean(2).reshape(-1, 1, *(1 for _ in stride))
    mixed = torch.where(reached > 0, mixed / reached, everywhere)
    return mixed.reshape(-1, sources, *mixed.shape[2:]).movedim(1, -1)


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
    columns = torch.eye(size, device=device).reshape(size, 1, size, 1)
    settings = {"align_corners": align_corners} if mode in planes else {}
    if antialias:
        settings["antialias"] = True
    if scale is None:
        moved = F.interpolate(columns, size=(target, 1), mode=planes.get(mode, mode), **settings)
    else:
        moved = F.interpolate(
            columns, scale_factor=(scale, 1.0), mode=planes.get(mode, mode), **settings
        )
    return _normalised(moved.reshape(size, -1).T)


def _taps(weights: Tensor) -> Tensor:
    """The taps' weights (1, 1, *kernel) of a convolution (out, in / groups, *kernel)."""
    taps = _shrunk(weights.detach().to(torch.float32).flatten(2)).abs().sum(1)
    taps = _normalised(taps).mean(0).reshape(1, 1, *weights.shape[2:])
    return taps.clamp_min(_SMALLEST_TAP)


def _shrunk(taps: Tensor) -> Tensor:
    """Each output channel's weights divided by their largest, so that their sum is finite."""
    largest = taps.abs().amax((1, 2), keepdim=True)
    return torch.where(largest > 0, taps / largest, taps)


def _slide(
    labels: Tensor,
    taps: Tensor,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Tensor:
    """Slide one kernel (1, 1, *kernel) over (N, *space, K) and renormalise inside the image."""
    convolution: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[len(stride) - 1]
    sources = labels.shape[-1]
    images = labels.movedim(-1, 1).reshape(-1, 1, *labels.shape[1:-1])
    outside = any(before or after for before, after in padding)
    if outside:
        widths = [width for pair in reversed(padding) for width in pair]
        images = F.pad(images, widths)
    mixed = convolution(images, taps, None, tuple(stride), 0, tuple(dilation))
    if outside:
        inside = F.pad(labels.new_ones(1, 1, *labels.shape[1:-1]), widths)
        mixed = mixed / convolution(inside, taps, None, tuple(stride), 0, tuple(dilation))
    else:
        mixed = mixed / taps.sum()
    return mixed.reshape(-1, sources, *mixed.shape[2:]).movedim(1, -1)
