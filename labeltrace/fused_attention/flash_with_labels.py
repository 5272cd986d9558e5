"""The processor's flash kernel, and a call of it with labels as further columns of the values.

Fused attention computes the scores of queries and keys and multiplies the values with their
softmax.  Labels that stand beside the values, ``[V, Y]``, are multiplied with it in the same pass:
nothing is computed twice but what the further columns themselves need.  The processor's kernel
takes queries, keys and values of one head size: queries get as many columns of noughts, and keys
what happens to lie behind them in memory, which the noughts leave without effect if it is finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes, of what PyTorch allocates on a processor."""

_FEWEST_TOKENS = 32

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


def sizes_fit(query: Sequence[int], key: Sequence[int], value: Sequence[int], columns: int) -> bool:
    """Whether the kernel takes such sizes, and labels of so many columns are cheaper within.

    Many columns cost as much as the scores; among few tokens there is little to save.
    """
    return (
        key == value
        and query[:2] == key[:2]
        and query[3] == key[3]
        and min(query[2], key[2]) >= _FEWEST_TOKENS
        and columns <= query[3] // 2
        and torch.backends.mkl.is_available()
    )


def has_remainder_key(keys: int) -> bool:
    """Whether the kernel's blocks leave one key over, whose scores depend on how rows lie."""
    return keys % _BLOCK_OF_KEYS == 1


def flash_call_with_labels(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    labels: Tensor,
    scale: float | None,
    strides: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention and labels mixed by it, averaged over heads.

    Args:
        query: (B, H, L, E), float32.
        key: (B, H, S, E).
        value: (B, H, S, E).
        labels: (B, S, K), float32.
        scale: of the scores; ``1 / sqrt(E)`` if None.
        strides: how the output is to lie in memory.

    Returns:
        The output (B, H, L, E); the logarithms of the normalisers (B, H, L); labels (B, L, K),
        whose columns lie beside each other.
    """
    size, columns = query.shape[-1], labels.shape[-1]
    scale = 1 / math.sqrt(size) if scale is None else scale
    wide, normalisers = _kernel(
        _append_zero_columns(query, columns),
        _extend_view(key, columns),
        _append_label_columns(value, labels),
        scale=scale,
    )
    values_mixed, labels_mixed = wide.split_with_sizes((size, columns), -1)
    output = query.new_empty_strided(query.shape, strides).copy_(values_mixed)
    if query.shape[2] % _BLOCK_OF_QUERIES == 1:
        _replace_last_query(output, normalisers, query, key, value, scale)
    return output, normalisers, labels_mixed.mT.mean(1).mT


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


def _append_zero_columns(tensor: Tensor, columns: int) -> Tensor:
    """A copy of (B, H, N, E) with columns of noughts."""
    wide, noughts = _copy(tensor, columns)
    noughts.zero_()
    return wide


def _append_label_columns(tensor: Tensor, labels: Tensor) -> Tensor:
    """A copy of (B, H, N, E) with labels (B, N, K), the same for all heads."""
    wide, beside = _copy(tensor, labels.shape[-1])
    beside.copy_(labels.unsqueeze(1))
    return wide


def _copy(tensor: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """A copy with further columns, and these by themselves, yet to be filled; rows are aligned."""
    *shape, size = tensor.shape
    unit = ALIGNMENT // tensor.element_size()
    memory = tensor.new_empty(*shape, -(-(size + columns) // unit) * unit)
    wide = memory[..., : size + columns]
    own, beside = wide.split_with_sizes((size, columns), -1)
    own.copy_(tensor)
    return wide, beside


def _extend_view(tensor: Tensor, columns: int) -> Tensor:
    """The tensor with columns of any finite numbers: no copy if memory goes on behind it."""
    if trailing_elements(tensor) < columns:
        return _append_zero_columns(tensor, columns)
    *shape, size = tensor.shape
    return tensor.as_strided((*shape, size + columns), tensor.stride())


def trailing_elements(tensor: Tensor) -> int:
    """How many elements of its memory lie behind the tensor's last."""
    elements = tensor.untyped_storage().nbytes() // tensor.element_size()
    return int(elements - tensor.storage_offset()) - memory_span(tensor.shape, tensor.stride())


def memory_span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements of memory from a tensor's first to its last."""
    return 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
