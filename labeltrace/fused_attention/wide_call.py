"""The processor's flash kernel, and a call of it with labels as further columns of the values.

Fused attention computes the scores of queries and keys and multiplies the values with their
softmax.  Labels that stand beside the values, ``[V, Y]``, are multiplied with it in the same pass:
nothing is computed twice but what the further columns themselves need.  The processor's kernel
takes queries, keys and values of one head size: queries get as many columns of noughts, and keys
what happens to lie behind them in memory, which the noughts leave without effect if it is finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes, of what PyTorch allocates on a processor."""

_COPIED_AT_ONCE = 2**19  # elements of queries, keys and values

# A single query or key that the kernel's blocks leave over is multiplied as a vector, not a matrix.
# MKL then adds up in an order that depends on how memory is aligned (oneMKL Developer Guide,
# "Obtaining Numerically Reproducible Results").  For such a query the plain call's output is
# computed; for such a key all rows that it is multiplied with must be aligned, those of copies too.
_BLOCK_OF_QUERIES = 32  # 32, 64 or 256
_BLOCK_OF_KEYS = 512

_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def plain_flash_call(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """The plain call's output (B, H, L, E), and the logarithms of its normalisers (B, H, L)."""
    output, normalisers = _kernel(query, key, value, scale=scale)
    return output, normalisers


def gradients_of_plain_call(
    gradient: Tensor, saved: tuple[Tensor, ...], scale: float | None
) -> tuple[Tensor, ...]:
    """Of queries, keys and values; saved are these, the output and the normalisers."""
    gradients: tuple[Tensor, ...] = (
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient, *saved, 0.0, False, scale=scale
        )
    )
    return gradients


def leaves_a_key_over(keys: int) -> bool:
    """Whether the kernel's blocks leave one key over, whose scores depend on how rows lie."""
    return keys % _BLOCK_OF_KEYS == 1


def wide_flash_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    labels: Tensor,
    scale: float | None,
    strides: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention and labels mixed by it, averaged over heads.

    Some samples at a time, whose copies stay in the cache and in memory that is at hand.

    Args:
        query: (B, H, L, E), float32.
        key: (B, H, S, E).
        value: (B, H, S, E).
        labels: (B, S, K), float32.
        scale: of the scores; ``1 / sqrt(E)`` if None.
        strides: how the output is to lie in memory.

    Returns:
        The output (B, H, L, E); the logarithms of the normalisers (B, H, L); labels (B, L, K).
    """
    (batch, heads, queries, size), columns = query.shape, labels.shape[-1]
    output = query.new_empty_strided(query.shape, strides)
    mixed = labels.new_empty(batch, columns, queries).mT
    normalisers: list[Tensor] = []
    pieces = _pieces(batch, _COPIED_AT_ONCE // ((query[0].numel() + 2 * key[0].numel()) or 1))
    scale = 1 / math.sqrt(size) if scale is None else scale
    parts = zip(
        _beside_noughts(query, columns, pieces),
        _beside_anything(key, columns, pieces),
        _beside_labels(value, labels, pieces),
        output.split_with_sizes(pieces),
        mixed.split_with_sizes(pieces),
        strict=True,
    )
    for wide_query, wide_key, wide_value, output_part, mixed_part in parts:
        wide, logarithms = _kernel(wide_query, wide_key, wide_value, scale=scale)
        values_mixed, labels_mixed = wide.split_with_sizes((size, columns), -1)
        output_part.copy_(values_mixed)
        torch.sum(labels_mixed, 1, out=mixed_part)
        normalisers.append(logarithms.mT)
    logarithms = torch.cat(normalisers).mT
    if queries % _BLOCK_OF_QUERIES == 1:
        _replace_last_query(output, logarithms, query, key, value, scale)
    return output, logarithms, mixed.div_(heads)


def _replace_last_query(
    output: Tensor, normalisers: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> None:
    """Put the plain call's numbers in the last row, the one that its blocks leave over.

    It is left over by these queries as well, and lies likewise in the kernel's own memory: by
    itself it would not.
    """
    last = slice(-1 - _BLOCK_OF_QUERIES, None)
    plain, logarithms = _kernel(query[:, :, last], key, value, scale=scale)
    output[:, :, -1] = plain[:, :, -1]
    normalisers[:, :, -1] = logarithms[:, :, -1]


def _pieces(samples: int, at_once: int) -> list[int]:
    """How many samples are copied at a time; only the last piece may be smaller."""
    whole, rest = divmod(samples, max(1, at_once))
    return [max(1, at_once)] * whole + [rest] * bool(rest)


def _beside_noughts(tensor: Tensor, columns: int, pieces: list[int]) -> Iterator[Tensor]:
    """Some samples of (B, H, N, E) at a time, each in the memory of the last, and noughts."""
    return (wide for wide, _ in _copied(tensor, columns, pieces))


def _beside_labels(tensor: Tensor, labels: Tensor, pieces: list[int]) -> Iterator[Tensor]:
    """Likewise, with labels (B, N, K) instead of noughts, the same for all heads."""
    copies = _copied(tensor, labels.shape[-1], pieces)
    parts = labels.unsqueeze(1).split_with_sizes(pieces)
    for (wide, beside), part in zip(copies, parts, strict=True):
        beside.copy_(part)
        yield wide


def _copied(tensor: Tensor, columns: int, pieces: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Likewise, and the columns beside by themselves; rows are aligned.

    Views are made once: next to a copy that lies in the cache, they are not for nothing.
    """
    *shape, size = tensor.shape[1:]
    unit = ALIGNMENT // tensor.element_size()
    memory = tensor.new_empty(pieces[0], *shape, -(-(size + columns) // unit) * unit)
    wide = memory[..., : size + columns]
    own, beside = wide.split_with_sizes((size, columns), -1)
    beside.zero_()
    for part in tensor.split_with_sizes(pieces):
        if len(part) < len(wide):  # the last
            wide, own, beside = (one[: len(part)] for one in (wide, own, beside))
        own.copy_(part)
        yield wide, beside


def _beside_anything(tensor: Tensor, columns: int, pieces: list[int]) -> Iterable[Tensor]:
    """Likewise, with columns of any numbers: without a copy if memory goes on behind the tensor."""
    if behind(tensor) < columns:
        return _beside_noughts(tensor, columns, pieces)
    *shape, size = tensor.shape
    wide = tensor.as_strided((*shape, size + columns), tensor.stride())
    return wide.split_with_sizes(pieces)


def behind(tensor: Tensor) -> int:
    """How many elements of its memory lie behind the tensor's last."""
    elements = tensor.untyped_storage().nbytes() // tensor.element_size()
    return int(elements - tensor.storage_offset()) - extent(tensor.shape, tensor.stride())


def extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements of memory from a tensor's first to its last."""
    return 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
