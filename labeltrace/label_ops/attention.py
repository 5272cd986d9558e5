"""Fused attention: named axes, brought into the order that the operator `attend` takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from labeltrace import fused_attention
from labeltrace.index_notation.attention_equation import AttentionEquation
from labeltrace.index_notation.parsing import Axes, flattened
from labeltrace.label_ops.arithmetic import label_arithmetic
from labeltrace.label_ops.equations import attention_equation, split_shape

Extents = dict[str, int]


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
    """`mix` with the probabilities of scaled dot-product attention, before dropout.

    Args:
        labels: a field (positions..., K), float32.
        query: (..., L, E), any floating dtype.
        key: (..., S, E); the leading dimensions broadcast.
        notation: as for `mix`, where the weights are the probabilities (..., L, S).  Only names of
            their last axis can be mixed away.
        mask: a boolean or additive mask that broadcasts to (..., L, S).  The arguments `mask`,
            `is_causal`, `scale` and `grouped_heads` (`enable_gqa`) have the meaning that they have
            in `torch.nn.functional.scaled_dot_product_attention`.
        is_causal: query i sees keys 0 to i only.
        scale: the factor of the scores; `1 / sqrt(E)` if None.
        grouped_heads: keys have fewer heads, at the third axis from the end.
        sizes: the sizes of all but one of the names in each pair of parentheses.

    Rows that are masked whole, or not finite, mix equally.

    Raises:
        NotationError: the notation cannot be read, or it mixes along other axes than the last.
    """
    equation = attention_equation(notation)
    query, key = query.detach(), key.detach()
    if (
        grouped_heads and equation.maps[-3] != equation.heads[-1:]
    ):  # heads that are not just averaged
        key, grouped_heads = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3), False
    extents = _extents(query, key, mask, equation, grouped_heads, sizes)
    key_extents = extents | {equation.heads[-1]: key.shape[-3]} if grouped_heads else extents
    mixed = fused_attention.attend(
        _queries(query, equation, extents),
        _keys(key, equation, key_extents),
        _labels_of_keys(labels, equation, extents),
        None if mask is None else _masks(mask.detach(), equation, extents),
        is_causal,
        1 / math.sqrt(query.shape[-1]) if scale is None else scale,
    )
    return _by_name(mixed, labels, equation, extents)


def attention_with_labels(
    labels: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    notation: str,
    scale: float | None = None,
    **sizes: int,
) -> tuple[Tensor, Tensor]:
    """The model's own attention without a mask, and `attend` for its labels.

    If one call of the model's kernel can compute both, and the output keeps every bit, the scores
    are computed once: see `labeltrace.fused_attention.joint_eager`.

    Args:
        value: (..., S, E); the other arguments are those of `attend`.

    Returns:
        (..., L, E), with its gradient, and the labels.
    """
    found = _jointly(labels, query, key, value, notation, scale, sizes)
    if found is not None:
        return found
    output = torch.ops.aten.scaled_dot_product_attention(query, key, value, scale=scale)
    given: dict[str, Any] = dict(sizes)
    return output, attend(labels, query, key, notation, scale=scale, **given)


def _jointly(
    labels: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    notation: str,
    scale: float | None,
    sizes: Extents,
) -> tuple[Tensor, Tensor] | None:
    """Output and labels from one call of the kernel; None where that is not possible."""
    equation = attention_equation(notation)
    run = _of_both(query, key, value) if equation.averages_heads_alone else None
    if run is None:
        return None
    if equation.is_in_order and labels.shape[:-1] == (query.shape[0], key.shape[2]):
        return run(query, key, value, labels, scale)
    extents = _extents(query, key, None, equation, False, sizes)
    batch = [extents[name] for name in equation.batch]
    columns = _labels_of_keys(labels, equation, extents)
    columns = columns.expand(*batch, *columns.shape[-2:]).reshape(-1, *columns.shape[-2:])
    found = run(query, key, value, columns, scale)
    if found is None:
        return None
    output, mixed = found
    return output, _by_name(mixed.unflatten(0, batch), labels, equation, extents)


def _of_both(
    query: Tensor, key: Tensor, value: Tensor
) -> Callable[..., tuple[Tensor, Tensor] | None] | None:
    """The function that computes outputs and labels of such tensors jointly; None without one."""
    if torch.compiler.is_compiling():
        on_processor = query.device.type == "cpu" and query.dim() == 4
        return fused_attention.compiled_attention_with_labels if on_processor else None
    may = fused_attention.can_compute_jointly(query, key, value)
    return fused_attention.attention_with_labels if may else None


_FEATURES = ("features",)  # the last axis of queries and keys: a word, since equations have letters


def _extents(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    equation: AttentionEquation,
    grouped_heads: bool,
    sizes: dict[str, int],
) -> Extents:
    """The size of every name of the attention map."""
    leading_of_key = (*key.shape[:-3], 1) if grouped_heads else key.shape[:-2]
    shape: tuple[int, ...] = (*query.shape[:-1], key.shape[-2])
    if mask is not None or leading_of_key != query.shape[:-2]:
        shapes = [shape, (*leading_of_key, 1, 1), *(() if mask is None else (mask.shape,))]
        shape = torch.broadcast_shapes(*shapes)
    axes = (*equation.maps, _FEATURES)
    found = split_shape((*shape, query.shape[-1]), axes, sizes)
    return dict(zip(flattened(axes), found, strict=True))


def _queries(query: Tensor, equation: AttentionEquation, extents: Extents) -> Tensor:
    """(batch..., H, L, E)."""
    axes = (*equation.maps[:-1], _FEATURES)
    heads = equation.heads + equation.heads_in_rows
    groups = (*equation.batch_groups, heads, equation.rows, _FEATURES)
    query = _arranged(query, axes, groups, extents)
    whole = [math.prod([extents[name] for name in group]) for group in groups[-3:-1]]
    return query.expand(*query.shape[:-3], *whole, query.shape[-1])


def _keys(key: Tensor, equation: AttentionEquation, extents: Extents) -> Tensor:
    """(batch..., G, S, E); a single head is there for all heads of the queries."""
    axes = (*equation.maps[:-2], equation.maps[-1], _FEATURES)
    groups = (*equation.batch_groups, equation.heads, equation.keys, _FEATURES)
    return _arranged(key, axes, groups, extents)


def _masks(mask: Tensor, equation: AttentionEquation, extents: Extents) -> Tensor:
    """(batch..., H, L, S), each of size one where the mask broadcasts."""
    heads = equation.heads + equation.heads_in_rows
    groups = (*equation.batch_groups, heads, equation.rows, equation.keys)
    return _arranged(mask, equation.maps, groups, extents)


def _arranged(tensor: Tensor, axes: Axes, groups: Axes, extents: Extents) -> Tensor:
    """The tensor with a dimension for each group of names, of size one where it broadcasts.

    A view wherever strides allow one: always, if no group has two names.
    """
    while tensor.dim() < len(axes):
        tensor = tensor.unsqueeze(0)
    names = flattened(axes)
    sizes = [
        1 if size == 1 else extents[name]
        for axis, size in zip(axes, tensor.shape, strict=True)
        for name in axis
    ]
    order = [names.index(name) for group in groups for name in group]
    tensor = tensor.reshape(sizes).permute(order)
    whole: list[int] = []
    merged: list[int] = []
    for group in groups:
        own = [sizes[names.index(name)] for name in group]
        if any(size != 1 for size in own):
            own = [extents[name] for name in group]
        whole += own
        merged.append(math.prod(own))
    return tensor.expand(whole).reshape(merged)


def _labels_of_keys(labels: Tensor, equation: AttentionEquation, extents: Extents) -> Tensor:
    """(batch..., S, free * K), batch dimensions of size one where the labels lack the name."""
    names = equation.labels
    wanted = (*equation.batch, *equation.keys)
    order = [name for name in (*wanted, *equation.free) if name in names]
    labels = labels.permute(*(names.index(name) for name in order), len(names))
    labels = labels[tuple(slice(None) if name in names else None for name in wanted)]
    batch, last = labels.shape[: len(equation.batch)], labels.shape[len(wanted) :]
    keys = [extents[name] for name in equation.keys]
    return labels.expand(*batch, *keys, *last).reshape(*batch, math.prod(keys), math.prod(last))


def _by_name(
    mixed: Tensor, labels: Tensor, equation: AttentionEquation, extents: Extents
) -> Tensor:
    """From (batch..., L, free * K) to the order of the result."""
    free = [labels.shape[equation.labels.index(name)] for name in equation.free]
    rows = [extents[name] for name in equation.rows]
    mixed = mixed.reshape(*mixed.shape[:-2], *rows, *free, labels.shape[-1])
    produced = (*equation.batch, *equation.rows, *equation.free)
    return mixed.permute(*(produced.index(name) for name in equation.result), len(produced))
