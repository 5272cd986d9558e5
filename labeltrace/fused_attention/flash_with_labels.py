"""The CPU's flash kernel, and a call of it with labels as additional columns of the values.

Fused attention computes the scores of queries and keys and multiplies the values by their softmax.
Labels appended to the values, `[V, Y]`, are multiplied by it in the same pass, so the scores are
computed once. The kernel takes queries, keys and values of one head size. Queries are padded with
zero columns. Keys are extended over whatever follows them in memory; the zeros cancel it, provided
it is finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 64
"""The alignment of what PyTorch allocates on a CPU, in bytes."""

_FEWEST_TOKENS = 32

# A single query or key that remains after the kernel's blocks is multiplied as a vector, not as a
# matrix. MKL then adds in an order that depends on how memory is aligned (oneMKL Developer Guide,
# "Obtaining Numerically Reproducible Results"). For such a query the plain call's output is
# computed. For such a key all rows that it is multiplied by must be aligned, also those of copies.
_BLOCK_OF_QUERIES = 32  # 32, 64 or 256
_BLOCK_OF_KEYS = 512

_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def plain_flash_call(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """The plain call's output (B, H, L, E), and the logsumexp of its scores (B, H, L)."""
    output, logsumexp = _kernel(query, key, value, scale=scale)
    return output, logsumexp


def gradients_of_plain_call(
    gradient: Tensor, saved: tuple[Tensor, ...], scale: float | None
) -> tuple[Tensor, ...]:
    """The gradients of query, key and value; `saved` are these, the output and the logsumexp."""
    gradients: tuple[Tensor, ...] = (
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient, *saved, 0.0, False, scale=scale
        )
    )
    return gradients


def sizes_fit(query: Sequence[int], key: Sequence[int], value: Sequence[int], columns: int) -> bool:
    """Whether the kernel takes such sizes, and labels of so many columns are cheaper jointly.

    Many columns cost as much as the scores; with few tokens there is little to save.
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
    """Whether one key remains after the kernel's blocks; its scores depend on alignment."""
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
        scale: of the scores; `1 / sqrt(E)` if None.
        strides: those of the output.

    Returns:
        The output (B, H, L, E); the logsumexp of the scores (B, H, L); labels (B, L, K), stored
        by column.
    """
    size, columns = query.shape[-1], labels.shape[-1]
    scale = 1 / math.sqrt(size) if scale is None else scale
    wide, logsumexp = _kernel(
        _append_zero_columns(query, columns),
        _extend_view(key, columns),
        _append_label_columns(value, labels),
        scale=scale,
    )
    values_mixed, labels_mixed = wide.split_with_sizes((size, columns), -1)
    output = query.new_empty_strided(query.shape, strides).copy_(values_mixed)
    if query.shape[2] % _BLOCK_OF_QUERIES == 1:
        _replace_last_query(output, logsumexp, query, key, value, scale)
    return output, logsumexp, labels_mixed.mT.mean(1).mT


def _replace_last_query(
    output: Tensor, logsumexp: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> None:
    """Write the plain call's numbers into the last row, the one that remains after its blocks.

    It remains after the block of these queries as well, so it has the same alignment in the
    kernel's own memory; computed alone it would not.
    """
    last = slice(-1 - _BLOCK_OF_QUERIES, None)
    plain, logsumexp_of_last = _kernel(query[:, :, last], key, value, scale=scale)
    output[:, :, -1] = plain[:, :, -1]
    logsumexp[:, :, -1] = logsumexp_of_last[:, :, -1]


def _append_zero_columns(tensor: Tensor, columns: int) -> Tensor:
    """A copy of (B, H, N, E) with additional columns of zeros."""
    wide, added = _copy_with_space(tensor, columns)
    added.zero_()
    return wide


def _append_label_columns(tensor: Tensor, labels: Tensor) -> Tensor:
    """A copy of (B, H, N, E) with labels (B, N, K) as additional columns, equal for all heads."""
    wide, added = _copy_with_space(tensor, labels.shape[-1])
    added.copy_(labels.unsqueeze(1))
    return wide


def _copy_with_space(tensor: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """A copy with additional columns, and a view of these, not filled yet; rows are aligned."""
    *shape, size = tensor.shape
    unit = ALIGNMENT // tensor.element_size()
    memory = tensor.new_empty(*shape, -(-(size + columns) // unit) * unit)
    wide = memory[..., : size + columns]
    own, added = wide.split_with_sizes((size, columns), -1)
    own.copy_(tensor)
    return wide, added


def _extend_view(tensor: Tensor, columns: int) -> Tensor:
    """The tensor with additional columns of any finite numbers: a view if enough memory follows."""
    if trailing_elements(tensor) < columns:
        return _append_zero_columns(tensor, columns)
    *shape, size = tensor.shape
    return tensor.as_strided((*shape, size + columns), tensor.stride())


def trailing_elements(tensor: Tensor) -> int:
    """How many elements of its memory follow the tensor's last element."""
    elements = tensor.untyped_storage().nbytes() // tensor.element_size()
    return int(elements - tensor.storage_offset()) - memory_span(tensor.shape, tensor.stride())


def memory_span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements of memory from a tensor's first element to its last, both included."""
    return 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
