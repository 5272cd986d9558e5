"""Mixing by matrices that are at hand: written-out and linear attention, learned token mixing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic, normalize_rows
from labeltrace.label_ops.notation import Axes, cache_unless_compiling, parse_axes, split_shape

_FEW_COLUMNS = 2
"""Up to so many columns of labels, as two mixed images have, each softmax mixes them by itself."""


@label_arithmetic
def mix(
    labels: Tensor, weights: Tensor, notation: str, normalized: bool = False, **sizes: int
) -> Tensor:
    """``Norm(W)·Y``: eq. 7, and eq. 9 where several matrices are averaged.

    Args:
        labels: a field (positions..., K), float32.
        weights: the mixing matrices, any floating dtype.
        notation: the axes by name, ``"b h q k, b k -> b q"``: weights, labels (K left out) and
            result.  Names that only the weights have are matrices to average (heads); names that
            only weights and labels share are mixed away; names of weights and result are rows.
            An axis made of several factors is in parentheses, ``"(b h) q k"``.  A name that only
            the weights have and that stands in parentheses with one that is mixed away,
            ``"b q (r k), b k -> b q"``, counts columns of equal labels: their weights are added.
        normal: whether the rows are the outcome of a softmax, so that Norm leaves them as they are.
        sizes: the sizes of all but one of the names in each pair of parentheses.

    Rows that sum to zero, or that have entries that are not finite, mix equally.
    """
    plan = _mixing_plan(notation)
    matrices, rows = _matrices(weights.detach().to(torch.float32), plan, sizes)
    columns = _columns(labels, plan, matrices.shape[-1])
    if normalized and weights.dtype in (
        torch.float32,
        torch.float64,
    ):  # others sum to one less closely
        return _by_name(_mixed_by_softmax(matrices, columns), labels, plan, rows)
    matrices = normalize_rows(matrices)
    averaged = matrices.mean(-3) if matrices.shape[-3] > 1 else matrices.squeeze(-3)
    return _by_name(averaged @ columns, labels, plan, rows)


@label_arithmetic
def mix_linear(
    labels: Tensor, query: Tensor, key: Tensor, notation: str, heads: str = "", **sizes: int
) -> Tensor:
    """``Norm(|q|·|k|^T)·Y`` in time linear in the positions: linear attention.

    Args:
        labels: a field (positions..., K), float32.
        query: the features of the rows, ``phi(q)``, any floating dtype.
        key: those of the columns, ``phi(k)``.
        notation: the axes of query, key, labels (K left out) and result, as in
            ``"b h q d, b h k d, b k -> b q"``.  An axis made of several factors is in parentheses.
        heads: the names, in a row, whose matrices are normalised one by one and averaged (eq. 9).
        sizes: the sizes of all but one of the names in each pair of parentheses.

    Rows that sum to zero mix equally.
    """
    inputs, result_text = notation.split("->")
    query_axes, key_axes, label_axes = (parse_axes(text) for text in inputs.split(","))
    result = "".join(result_text.split())
    queries, query_names = _split_named_axes(query, query_axes, sizes)
    keys, key_names = _split_named_axes(key, key_axes, sizes)
    field = "".join(name for axis in label_axes for name in axis)
    columns = [name for name in field if name not in result]
    kept = "".join(name for name in field if name not in columns)
    context = "".join(dict.fromkeys(n for n in key_names + field if n not in columns))
    rows = heads + result
    counted = torch.cat((labels, torch.ones_like(labels[..., :1])), -1)  # the rows' sums ride along
    gathered = torch.einsum(f"{key_names},{field}Z->{context}Z", keys, counted)
    mixed = torch.einsum(f"{query_names},{context}Z->{rows}Z", queries, gathered)
    equal = counted.mean([field.index(name) for name in columns])
    spread = torch.einsum(f"{kept}Z,{rows}->{rows}Z", equal, torch.ones_like(mixed[..., 0]))
    mixed = torch.where(mixed[..., -1:] > 0, mixed / mixed[..., -1:], spread)[..., :-1]
    return mixed.mean(tuple(range(len(heads)))) if heads else mixed


def _split_named_axes(values: Tensor, axes: Axes, sizes: dict[str, int]) -> tuple[Tensor, str]:
    """Magnitudes, scaled to at most one, with a dimension for each name."""
    values = values.detach().to(torch.float32).abs()
    values = values / values.amax().clamp_min(torch.finfo(torch.float32).tiny)
    names = "".join(name for axis in axes for name in axis)
    return values.reshape(split_shape(values.shape, axes, sizes)), names


@dataclass(frozen=True, slots=True)
class _MixingPlan:
    """A parsed notation: how to bring weights and labels into the shape of a matrix product."""

    weight_axes: Axes
    label_names: tuple[str, ...]
    batch: tuple[str, ...]
    averaged: tuple[str, ...]
    rows: tuple[str, ...]
    added: tuple[str, ...]
    columns: tuple[str, ...]
    free: tuple[str, ...]
    result: tuple[str, ...]

    @property
    def weight_names(self) -> tuple[str, ...]:
        return tuple(name for axis in self.weight_axes for name in axis)


@cache_unless_compiling
def _mixing_plan(notation: str) -> _MixingPlan:
    inputs, result_text = notation.split("->")
    weight_text, label_text = inputs.split(",")
    weight_axes = parse_axes(weight_text)
    weights = [name for axis in weight_axes for name in axis]
    labels = tuple(label_text.split())
    result = tuple(result_text.split())
    columns = tuple(n for n in weights if n in labels and n not in result)
    own = tuple(n for n in weights if n not in labels and n not in result)
    beside = {n for axis in weight_axes if not set(columns).isdisjoint(axis) for n in axis}
    return _MixingPlan(
        weight_axes=weight_axes,
        label_names=labels,
        batch=tuple(n for n in weights if n in labels and n in result),
        averaged=tuple(n for n in own if n not in beside),
        rows=tuple(n for n in weights if n not in labels and n in result),
        added=tuple(n for n in own if n in beside),
        columns=columns,
        free=tuple(n for n in labels if n not in weights),
        result=result,
    )


def _matrices(
    weights: Tensor, plan: _MixingPlan, sizes: dict[str, int]
) -> tuple[Tensor, list[int]]:
    """The weights as (batch..., averaged, rows, added * columns), and the sizes of the row axes.

    The averaged axes are flattened into one, and so are rows and columns.
    """
    shape = split_shape(weights.shape, plan.weight_axes, sizes)
    names = plan.weight_names
    order = (*plan.batch, *plan.averaged, *plan.rows, *plan.added, *plan.columns)
    weights = weights.reshape(shape).permute([names.index(name) for name in order])
    extents = dict(zip(names, shape, strict=True))
    rows = [extents[name] for name in plan.rows]
    flat = (
        *(extents[name] for name in plan.batch),
        math.prod([extents[name] for name in plan.averaged]),
        math.prod(rows),
        math.prod([extents[name] for name in (*plan.added, *plan.columns)]),
    )
    return weights.reshape(flat), rows


def _columns(labels: Tensor, plan: _MixingPlan, count: int) -> Tensor:
    """The labels of all ``count`` columns of the matrices: (batch..., count, free * K)."""
    names = plan.label_names
    order = (*plan.batch, *plan.columns, *plan.free)
    labels = labels.permute(*(names.index(name) for name in order), len(names))
    batch = labels.shape[: len(plan.batch)]
    last = math.prod(labels.shape[len(plan.batch) + len(plan.columns) :])
    labels = labels.reshape(*batch, 1, -1, last)
    return labels.expand(*batch, count // labels.shape[-2], -1, -1).flatten(-3, -2)


def _mixed_by_softmax(matrices: Tensor, columns: Tensor) -> Tensor:
    """The mean over matrices (..., averaged, rows, columns) of their products with the columns.

    Rows sum to one or are NaN throughout: those are masked whole, or overflow, and mix equally.
    """
    if columns.shape[-1] > _FEW_COLUMNS:
        lost = matrices[..., :1].isnan().sum(-3)
        summed = matrices.nansum(-3) + lost / matrices.shape[-1]
        return summed @ columns / matrices.shape[-3]
    # Few products cost less than a sum of the matrices, and transposed ones less than plain ones.
    mixed = columns.mT.unsqueeze(-3) @ matrices.mT
    mixed = torch.where(mixed.isnan(), columns.mean(-2, keepdim=True).mT.unsqueeze(-3), mixed)
    return mixed.mean(-3).mT


def _by_name(mixed: Tensor, labels: Tensor, plan: _MixingPlan, rows: list[int]) -> Tensor:
    """From (batch..., rows, free * K) to the order of the result."""
    names, sources = plan.label_names, labels.shape[-1]
    free = [labels.shape[names.index(name)] for name in plan.free]
    mixed = mixed.reshape(*mixed.shape[:-2], *rows, *free, sources)
    produced = (*plan.batch, *plan.rows, *plan.free)
    return mixed.permute(*(produced.index(name) for name in plan.result), len(produced))
