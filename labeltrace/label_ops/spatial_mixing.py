"""Mixing by matrices that the model computes: attention, linear attention, learned token mixing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from labeltrace.index_notation.mixing_equation import MixingEquation
from labeltrace.index_notation.parsing import Axes
from labeltrace.label_ops.arithmetic import label_arithmetic, normalize_rows
from labeltrace.label_ops.equations import linear_mixing_equation, mixing_equation, split_shape

_FEW_COLUMNS = 2
"""With at most so many columns of labels (two mixed images), each softmax mixes them separately."""


@label_arithmetic
def mix(
    labels: Tensor, weights: Tensor, notation: str, normalized: bool = False, **sizes: int
) -> Tensor:
    """`Norm(W)·Y`: eq. 7, and eq. 9 where several matrices are averaged.

    Examples:
        >>> labels = torch.eye(3)[None]  # one image of three tokens
        >>> attention = torch.tensor([[[[2.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]])
        >>> mix(labels, attention, "b h q k, b k -> b q")
        tensor([[[0.5000, 0.2500, 0.2500],
                 [1.0000, 0.0000, 0.0000],
                 [0.3333, 0.3333, 0.3333]]])

    Args:
        labels: a field (positions..., K), float32.
        weights: the mixing matrices, any floating dtype.
        notation: the axes by name, `"b h q k, b k -> b q"`: weights, labels (K left out) and
            result.  Names that only the weights have are matrices to average (heads); names that
            only weights and labels share are mixed away; names of weights and result are rows.
            An axis made of several factors is in parentheses, `"(b h) q k"`.  A name that only the
            weights have, in parentheses with one that is mixed away, as `r` in
            `"b q (r k), b k -> b q"`, counts columns of equal labels: their weights are added.
        normalized: whether the rows are the result of a softmax, so that Norm does not change them.
        sizes: the sizes of all but one of the names in each pair of parentheses.

    Rows that sum to zero, or that have entries that are not finite, mix equally.

    Raises:
        NotationError: the notation cannot be read.
    """
    equation = mixing_equation(notation)
    matrices, rows = _matrices(weights.detach().to(torch.float32), equation, sizes)
    columns = _columns(labels, equation, matrices.shape[-1])
    exact = weights.dtype in (torch.float32, torch.float64)  # others sum to one less closely
    if normalized and exact:
        return _by_name(_mixed_by_softmax(matrices, columns), labels, equation, rows)
    matrices = normalize_rows(matrices)
    averaged = matrices.mean(-3) if matrices.shape[-3] > 1 else matrices.squeeze(-3)
    return _by_name(averaged @ columns, labels, equation, rows)


@label_arithmetic
def mix_linear(
    labels: Tensor, query: Tensor, key: Tensor, notation: str, heads: str = "", **sizes: int
) -> Tensor:
    """`Norm(|q|·|k|^T)·Y` in time linear in the positions: linear attention.

    Args:
        labels: a field (positions..., K), float32.
        query: the features of the rows, `phi(q)`, any floating dtype.
        key: the features of the columns, `phi(k)`.
        notation: the axes of query, key, labels (K left out) and result, as in
            `"b h q d, b h k d, b k -> b q"`.  An axis made of several factors is in parentheses.
        heads: the names, one letter each, whose matrices are normalized one by one and averaged
            (eq. 9).
        sizes: the sizes of all but one of the names in each pair of parentheses.

    Rows that sum to zero mix equally.

    Raises:
        NotationError: the notation cannot be read.
    """
    equation = linear_mixing_equation(notation)
    queries = _magnitudes(query, equation.query, sizes)
    keys = _magnitudes(key, equation.key, sizes)
    query_names, key_names = "".join(equation.query_names), "".join(equation.key_names)
    field, rows = "".join(equation.labels), heads + "".join(equation.result)
    columns = equation.columns
    kept = "".join(name for name in field if name not in columns)
    context = "".join(dict.fromkeys(n for n in key_names + field if n not in columns))
    counted = torch.cat((labels, torch.ones_like(labels[..., :1])), -1)  # the rows' sums ride along
    gathered = torch.einsum(f"{key_names},{field}Z->{context}Z", keys, counted)
    mixed = torch.einsum(f"{query_names},{context}Z->{rows}Z", queries, gathered)
    equal = counted.mean([field.index(name) for name in columns])
    spread = torch.einsum(f"{kept}Z,{rows}->{rows}Z", equal, torch.ones_like(mixed[..., 0]))
    mixed = torch.where(mixed[..., -1:] > 0, mixed / mixed[..., -1:], spread)[..., :-1]
    return mixed.mean(tuple(range(len(heads)))) if heads else mixed


def _magnitudes(values: Tensor, axes: Axes, sizes: dict[str, int]) -> Tensor:
    """Magnitudes, scaled to at most one, with a dimension for each name."""
    values = values.detach().to(torch.float32).abs()
    values = values / values.amax().clamp_min(torch.finfo(torch.float32).tiny)
    return values.reshape(split_shape(values.shape, axes, sizes))


def _matrices(
    weights: Tensor, equation: MixingEquation, sizes: dict[str, int]
) -> tuple[Tensor, list[int]]:
    """The weights as (batch..., heads, rows, repeats * columns), and the sizes of the row axes.

    The axes of heads are flattened into one, and so are rows and columns.
    """
    shape = split_shape(weights.shape, equation.weights, sizes)
    names = equation.weight_names
    last = (*equation.repeats, *equation.columns)
    order = (*equation.batch, *equation.heads, *equation.rows, *last)
    weights = weights.reshape(shape).permute([names.index(name) for name in order])
    extents = dict(zip(names, shape, strict=True))
    rows = [extents[name] for name in equation.rows]
    flat = (
        *(extents[name] for name in equation.batch),
        math.prod([extents[name] for name in equation.heads]),
        math.prod(rows),
        math.prod([extents[name] for name in last]),
    )
    return weights.reshape(flat), rows


def _columns(labels: Tensor, equation: MixingEquation, count: int) -> Tensor:
    """The labels of all `count` columns of the matrices: (batch..., count, free * K)."""
    names = equation.labels
    order = (*equation.batch, *equation.columns, *equation.free)
    labels = labels.permute(*(names.index(name) for name in order), len(names))
    batch = labels.shape[: len(equation.batch)]
    last = math.prod(labels.shape[len(equation.batch) + len(equation.columns) :])
    labels = labels.reshape(*batch, 1, -1, last)
    return labels.expand(*batch, count // labels.shape[-2], -1, -1).flatten(-3, -2)


def _mixed_by_softmax(matrices: Tensor, columns: Tensor) -> Tensor:
    """The mean over matrices (..., heads, rows, columns) of their products with the columns.

    Each row sums to one, or is all NaN: then it is masked whole or overflows, and mixes equally.
    """
    if columns.shape[-1] > _FEW_COLUMNS:
        lost = matrices[..., :1].isnan().sum(-3)
        summed = matrices.nansum(-3) + lost / matrices.shape[-1]
        return summed @ columns / matrices.shape[-3]
    # A few products cost less than the sum of the matrices; transposed, they cost least.
    mixed = columns.mT.unsqueeze(-3) @ matrices.mT
    mixed = torch.where(mixed.isnan(), columns.mean(-2, keepdim=True).mT.unsqueeze(-3), mixed)
    return mixed.mean(-3).mT


def _by_name(mixed: Tensor, labels: Tensor, equation: MixingEquation, rows: list[int]) -> Tensor:
    """From (batch..., rows, free * K) to the order of the result."""
    names, sources = equation.labels, labels.shape[-1]
    free = [labels.shape[names.index(name)] for name in equation.free]
    mixed = mixed.reshape(*mixed.shape[:-2], *rows, *free, sources)
    produced = (*equation.batch, *equation.rows, *equation.free)
    return mixed.permute(*(produced.index(name) for name in equation.result), len(produced))
