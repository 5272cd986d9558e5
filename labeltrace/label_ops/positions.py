"""Steps that move positions and mix nothing: views, slices, rolls, padding, concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

import torch
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic
from labeltrace.layout import sliding_windows


@label_arithmetic
def relayout(
    labels: Tensor,
    split: Sequence[int] | None = None,
    order: Sequence[int] | None = None,
    merge: Sequence[int] | None = None,
) -> Tensor:
    """Split the dimensions of a field, permute them, and merge them.

    Args:
        labels: a field (positions..., K).
        split: the sizes of the dimensions after the split, without K; one of them may be -1.
        order: the permutation of these dimensions; K stays last.
        merge: the sizes of the dimensions of the result, without K; one of them may be -1.
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
def cut(labels: Tensor, dim: int, start: int, end: int | None, step: int = 1) -> Tensor:
    """`start:end:step` of dimension `dim`."""
    return torch.ops.aten.slice(labels, dim, start, end, step)


@label_arithmetic
def select(labels: Tensor, dim: int, index: int) -> Tensor:
    """Index `index` of dimension `dim`, which is removed."""
    return labels.select(dim, index)


@label_arithmetic
def repeat(labels: Tensor, counts: Sequence[int], interleave: bool) -> Tensor:
    """Repeat each dimension: `0 1 0 1`, or `0 0 1 1` with `interleave`; K is not repeated."""
    if not interleave:
        return labels.repeat(*counts, 1)
    for dim, count in enumerate(counts):
        labels = labels.repeat_interleave(count, dim)
    return labels


@label_arithmetic
def roll(labels: Tensor, shifts: Sequence[int], dims: Sequence[int]) -> Tensor:
    """Dimensions rolled as `torch.roll` does."""
    return labels.roll(tuple(shifts), tuple(dims))


@label_arithmetic
def flip(labels: Tensor, dims: Sequence[int]) -> Tensor:
    """Dimensions reversed as `torch.flip` does."""
    return labels.flip(tuple(dims))


@label_arithmetic
def take(labels: Tensor, dim: int, index: Tensor) -> Tensor:
    """Indices of dimension `dim`.

    `index` holds integers, which may be negative, or is a boolean mask; several dimensions are
    flattened.
    """
    if index.dtype == torch.bool:
        index = index.flatten().nonzero().squeeze(-1)
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
    """Add positions around a field.

    Args:
        labels: a field (positions..., K).
        prior: (B, K), or with as many dimensions as `labels` and ones for sizes; read only with
            mode `"prior"`.
        widths: (before, after) each dimension; negative widths crop.
        mode: what new positions carry: `"prior"` (contract, point 3), or copies of other positions
            as torch's padding makes them: `"reflect"`, `"replicate"`, `"circular"`.
        batch_dim: the dimension of the batch.
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
    pieces = [_spread_prior(prior, labels.shape, dim, before, batch_dim)] if before > 0 else []
    pieces.append(kept)
    if after > 0:
        pieces.append(_spread_prior(prior, labels.shape, dim, after, batch_dim))
    return torch.cat(pieces, dim) if len(pieces) > 1 else kept


def _padded_index(size: int, before: int, after: int, mode: str, device: torch.device) -> Tensor:
    index = torch.arange(-before, size + after, device=device)
    if mode == "circular":  # torch crops by negative widths first, then repeats the rest
        first = max(-before, 0)
        kept = size - first - max(-after, 0)
        return first + (index - first) % kept
    if mode == "replicate":
        return index.clamp(0, size - 1)
    if mode == "reflect":
        index = index.abs()
        return torch.where(index >= size, 2 * (size - 1) - index, index)
    raise ValueError(f"unknown padding mode {mode!r}")


@label_arithmetic
def unfold(
    labels: Tensor,
    prior: Tensor | None,
    dims: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    batch_dim: int = 0,
    copies: Sequence[int] = (),
) -> Tensor:
    """Cut dimensions into windows: each becomes two, the windows and the positions in a window.

    Args:
        labels: a field (positions..., K).
        prior: (B, K), or with as many dimensions as `labels`, which padding carries (contract,
            point 3); not read without padding.
        dims: the dimensions to cut.
        kernel, stride, padding, dilation: one number for each of `dims`, as
            `torch.nn.functional.unfold` takes them.
        batch_dim: the dimension of the batch.
        copies: how often each of `dims`, of size one, is repeated before it is cut; empty for none.

    Returns:
        The field with dimension d of `dims` replaced by (windows, kernel).
    """
    for dim, count in zip(dims, copies, strict=False):
        labels = labels.repeat_interleave(count, dim)
    for dim, width in zip(dims, padding, strict=True):
        if width:
            assert prior is not None
            labels = _pad_one(labels, prior, dim, width, width, "prior", batch_dim)
    windows = zip(dims, sliding_windows(kernel, stride, padding, dilation), strict=True)
    for dim, window in sorted(windows, key=itemgetter(0), reverse=True):  # a cut moves later dims
        spans = labels.unfold(dim, window.span, window.stride)
        labels = spans[..., :: window.dilation].movedim(-1, dim + 1)
    return labels


@label_arithmetic
def join(pieces: Sequence[Tensor], sizes: Sequence[int], dim: int, batch_dim: int = 0) -> Tensor:
    """Concatenate fields along dimension `dim`.

    Args:
        pieces: fields that broadcast along all other dimensions. A piece of two dimensions where
            others have more is the prior (B, K), repeated along its size.
        sizes: the size of each piece along `dim`; -1 for the size that the piece has.
        dim: the dimension along which they are concatenated.
        batch_dim: the dimension of the batch.
    """
    dims = max(piece.dim() for piece in pieces)
    fields = [piece for piece in pieces if piece.dim() == dims]
    shape = [max(sizes) for sizes in zip(*(piece.shape for piece in fields), strict=True)]
    whole = [
        _spread_prior(piece, shape, dim, size, batch_dim)
        if piece.dim() < dims
        else piece.expand(_resized(shape, dim, size))
        for piece, size in zip(pieces, sizes, strict=True)
    ]
    return torch.cat(whole, dim)


def _spread_prior(
    prior: Tensor, shape: Sequence[int], dim: int, size: int, batch_dim: int
) -> Tensor:
    """The prior at `size` positions of dimension `dim` of a field of `shape`."""
    if prior.dim() == len(shape):
        return prior.expand(_resized(shape, dim, size))
    broadcast = [1] * len(shape)
    broadcast[batch_dim], broadcast[-1] = prior.shape
    return prior.reshape(broadcast).expand(_resized(shape, dim, size))


def _resized(shape: Sequence[int], dim: int, size: int) -> list[int]:
    return [*shape[:dim], size, *shape[dim + 1 :]]
