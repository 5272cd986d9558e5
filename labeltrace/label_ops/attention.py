"""Fused attention: axes by name, brought into the form of the operator ``labeltrace::attend``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labeltrace import fused_attention
from labeltrace.label_ops.arithmetic import label_arithmetic
from labeltrace.label_ops.notation import Axes, cache_unless_compiling, parse_axes, split_shape

Names = tuple[str, ...]
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
    """:func:`mix` with the probabilities of scaled dot-product attention, before dropout.

    Args:
        labels: a field (positions..., K), float32.
        query: (..., L, E), any floating dtype.
        key: (..., S, E); the leading dimensions broadcast.
        notation: as for :func:`mix`, where the weights are the probabilities (..., L, S).  What is
            mixed away are names of their last axis, no others.
        mask: a boolean or additive one that broadcasts to (..., L, S).  It, ``is_causal``,
            ``scale`` and ``grouped_heads`` (``enable_gqa``) mean what they mean to
            :func:`torch.nn.functional.scaled_dot_product_attention`.
        is_causal: query i sees keys 0 to i only.
        scale: of the scores; ``1 / sqrt(E)`` if None.
        grouped_heads: keys have fewer heads, at the third axis from the end.
        sizes: the sizes of all but one of the names in each pair of parentheses.

    Rows that are masked whole, or not finite, mix equally.
    """
    plan = _plan(notation)
    query, key = query.detach(), key.detach()
    if grouped_heads and plan.axes[-3] != plan.heads[-1:]:  # heads that are not just averaged
        key, grouped_heads = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3), False
    extents = _extents(query, key, mask, plan, grouped_heads, sizes)
    mixed = fused_attention.attend(
        _queries(query, plan, extents),
        _keys(key, plan, extents | {plan.heads[-1]: key.shape[-3]} if grouped_heads else extents),
        _labels_of_keys(labels, plan, extents),
        None if mask is None else _masks(mask.detach(), plan, extents),
        is_causal,
        1 / math.sqrt(query.shape[-1]) if scale is None else scale,
    )
    return _by_name(mixed, labels, plan, extents)


def attention_with_labels(
    labels: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    notation: str,
    scale: float | None = None,
    **sizes: int,
) -> tuple[Tensor, Tensor]:
    """The model's own attention without a mask, and :func:`attend` for its labels.

    Where one call of the model's kernel can compute both, and the output stays what it is bit for
    bit, the scores are computed once: see :mod:`labeltrace.fused_attention.joint_eager`.

    Args:
        value: (..., S, E); the other arguments are those of :func:`attend`.

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
    """Output and labels from one call of the kernel, if it can be."""
    plan = _plan(notation)
    run = _of_both(query, key, value) if plan.averages_heads_alone else None
    if run is None:
        return None
    if plan.is_in_order and labels.shape[:-1] == (query.shape[0], key.shape[2]):
        return run(query, key, value, labels, scale)
    extents = _extents(query, key, None, plan, False, sizes)
    batch = [extents[name] for name in plan.batch]
    columns = _labels_of_keys(labels, plan, extents)
    columns = columns.expand(*batch, *columns.shape[-2:]).reshape(-1, *columns.shape[-2:])
    found = run(query, key, value, columns, scale)
    if found is None:
        return None
    output, mixed = found
    return output, _by_name(mixed.unflatten(0, batch), labels, plan, extents)


def _of_both(
    query: Tensor, key: Tensor, value: Tensor
) -> Callable[..., tuple[Tensor, Tensor] | None] | None:
    """What computes outputs and labels of such tensors, if anything does."""
    if torch.compiler.is_compiling():
        on_processor = query.device.type == "cpu" and query.dim() == 4
        return fused_attention.compiled_attention_with_labels if on_processor else None
    may = fused_attention.can_compute_jointly(query, key, value)
    return fused_attention.attention_with_labels if may else None


@dataclass(frozen=True, slots=True)
class _Plan:
    """A parsed notation: what the names of an attention map are to the operator."""

    axes: Axes  # of the map
    batch: Names  # names of leading axes that the result has as well
    heads: Names  # names of leading axes that are averaged
    heads_in_rows: Names  # names of the axis of queries that are averaged
    rows: Names
    keys: Names  # some of them may count keys of equal labels, which lack them
    labels: Names
    free: Names  # names that only labels and result have
    result: Names

    @property
    def averages_heads_alone(self) -> bool:
        """Whether a map is (batch, heads, queries, keys), and its heads are what is averaged."""
        by_axis = (self.batch, self.heads, self.rows, self.keys)
        return self.axes == by_axis and bool(self.heads)

    @property
    def is_in_order(self) -> bool:
        """Whether labels and result are those of a map (batch, heads, queries, keys) already."""
        return (
            (len(self.batch), len(self.rows), len(self.keys)) == (1, 1, 1)
            and self.labels == self.batch + self.keys
            and self.result == self.batch + self.rows
        )

    @property
    def batch_groups(self) -> Axes:
        return tuple((name,) for name in self.batch)


@cache_unless_compiling
def _plan(notation: str) -> _Plan:
    inputs, result_text = notation.split("->")
    map_text, label_text = inputs.split(",")
    axes = parse_axes(map_text)
    labels, result = tuple(label_text.split()), tuple(result_text.split())
    leading = [name for axis in axes[:-2] for name in axis]
    plan = _Plan(
        axes=axes,
        batch=tuple(name for name in leading if name in result),
        heads=tuple(name for name in leading if name not in result),
        heads_in_rows=tuple(name for name in axes[-2] if name not in result),
        rows=tuple(name for name in axes[-2] if name in result),
        keys=axes[-1],
        labels=labels,
        free=tuple(name for name in labels if name in result and name not in leading),
        result=result,
    )
    misplaced = [
        *(name for name in (*plan.heads, *axes[-2]) if name in labels),
        *(name for name in plan.keys if name in result),
    ]
    if misplaced:
        raise ValueError(
            f"attention mixes along the last axis of its map, each query by itself: {misplaced} "
            f"of {notation!r} stand elsewhere"
        )
    return plan


_FEATURES = ("features",)  # of queries and keys: a word, where notations have letters


def _extents(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    plan: _Plan,
    grouped_heads: bool,
    sizes: dict[str, int],
) -> Extents:
    """The size of every name of the attention map."""
    leading_of_key = (*key.shape[:-3], 1) if grouped_heads else key.shape[:-2]
    shape: tuple[int, ...] = (*query.shape[:-1], key.shape[-2])
    if mask is not None or leading_of_key != query.shape[:-2]:
        shapes = [shape, (*leading_of_key, 1, 1), *(() if mask is None else (mask.shape,))]
        shape = torch.broadcast_shapes(*shapes)
    axes = (*plan.axes, _FEATURES)
    names = [name for axis in axes for name in axis]
    found = split_shape((*shape, query.shape[-1]), axes, sizes)
    return dict(zip(names, found, strict=True))


def _queries(query: Tensor, plan: _Plan, extents: Extents) -> Tensor:
    """(batch..., H, L, E)."""
    axes = (*plan.axes[:-1], _FEATURES)
    groups = (*plan.batch_groups, plan.heads + plan.heads_in_rows, plan.rows, _FEATURES)
    query = _arranged(query, axes, groups, extents)
    whole = [math.prod([extents[name] for name in group]) for group in groups[-3:-1]]
    return query.expand(*query.shape[:-3], *whole, query.shape[-1])


def _keys(key: Tensor, plan: _Plan, extents: Extents) -> Tensor:
    """(batch..., G, S, E); a single head is there for all heads of the queries."""
    axes = (*plan.axes[:-2], plan.axes[-1], _FEATURES)
    groups = (*plan.batch_groups, plan.heads, plan.keys, _FEATURES)
    return _arranged(key, axes, groups, extents)


def _masks(mask: Tensor, plan: _Plan, extents: Extents) -> Tensor:
    """(batch..., H, L, S), each of size one where the mask broadcasts."""
    groups = (*plan.batch_groups, plan.heads + plan.heads_in_rows, plan.rows, plan.keys)
    return _arranged(mask, plan.axes, groups, extents)


def _arranged(tensor: Tensor, axes: Axes, groups: Axes, extents: Extents) -> Tensor:
    """The tensor with a dimension for each group of names, of size one where it broadcasts.

    A view wherever strides allow one: always, if no group has two names.
    """
    while tensor.dim() < len(axes):
        tensor = tensor.unsqueeze(0)
    names = [name for axis in axes for name in axis]
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


def _labels_of_keys(labels: Tensor, plan: _Plan, extents: Extents) -> Tensor:
    """(batch..., S, free * K), batch dimensions of size one where the labels lack the name."""
    names = plan.labels
    wanted = (*plan.batch, *plan.keys)
    order = [name for name in (*wanted, *plan.free) if name in names]
    labels = labels.permute(*(names.index(name) for name in order), len(names))
    labels = labels[tuple(slice(None) if name in names else None for name in wanted)]
    batch, last = labels.shape[: len(plan.batch)], labels.shape[len(wanted) :]
    keys = [extents[name] for name in plan.keys]
    return labels.expand(*batch, *keys, *last).reshape(*batch, math.prod(keys), math.prod(last))


def _by_name(mixed: Tensor, labels: Tensor, plan: _Plan, extents: Extents) -> Tensor:
    """From (batch..., L, free * K) to the order of the result."""
    free = [labels.shape[plan.labels.index(name)] for name in plan.free]
    rows = [extents[name] for name in plan.rows]
    mixed = mixed.reshape(*mixed.shape[:-2], *rows, *free, labels.shape[-1])
    produced = (*plan.batch, *plan.rows, *plan.free)
    return mixed.permute(*(produced.index(name) for name in plan.result), len(produced))
