"""Element-wise steps: what becomes of the labels of broadcast operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from labeltrace.errors import LayoutError
from labeltrace.flow import (
    Average,
    Carry,
    Flow,
    Labels,
    Operand,
    Operation,
    Weights,
    changed_factors,
)
from labeltrace.layout import Layout, align, expand, has_channels, has_positions, repeats
from labeltrace.rule_api.call import Shape
from labeltrace.rule_helpers.key_value_product import Pending


def carry(
    source: Operand,
    output: Shape,
    *,
    operation: Operation = Operation.POINTWISE,
    bounded: bool | None = None,
    least: float | None = None,
    approximation: str = "",
) -> Flow:
    """The operand's label as it is, also where a constant broadcasts the output to more axes."""
    return over(
        source,
        expand(source.positions, output),
        operation=operation,
        bounded=bounded,
        least=least,
        approximation=approximation,
    )


def over(
    source: Operand,
    layout: Layout,
    *,
    operation: Operation,
    bounded: bool | None = None,
    least: float | None = None,
    approximation: str = "",
) -> Flow:
    """The operand's label through another layout of the same field; weights stay weights."""
    if source.labelled:
        return Carry(
            operation=operation,
            layout=layout,
            source=source,
            bounded=bounded,
            least=least,
            approximation=approximation,
        )
    pending = source.pending
    if isinstance(pending, Pending) and bounded is not None:  # a non-linear step
        layout, pending = pending.resolved(layout), None
    if least is None and operation is Operation.RELAYOUT:
        least = source.least
    factors = changed_factors([source]) if bounded is None else None
    return Weights(
        layout=layout, least=least, pending=pending, approximation=approximation, factors=factors
    )


def combine(
    operands: Sequence[Operand],
    output: Shape,
    *,
    operation: Operation,
    shares: Sequence[int] | None = None,
    bounded: bool | None = None,
    approximation: str = "",
) -> Flow:
    """``Norm(sum_i s_i Y_i)`` over broadcast traced operands; with weights among them, weights."""
    if any(operand.pending is not None for operand in operands):
        raise LayoutError("keys times values, summed over positions, join another stream")
    alignment = align([operand.positions for operand in operands], output)
    if not all(operand.labelled for operand in operands):
        factors = changed_factors(operand for operand in operands if operand.is_weights)
        return Weights(layout=alignment.layout, approximation=approximation, factors=factors)
    sources = tuple(
        Labels(operand, alignment.arrangement(index)) for index, operand in enumerate(operands)
    )
    if len({(labels.operand.field, labels.arrangement) for labels in sources}) == 1:
        source = min(operands, key=lambda operand: operand.bounded)  # a gate if all are
        return over(
            source,
            _with_channels(expand(source.positions, output), alignment.layout),
            operation=operation,
            bounded=bounded,
            approximation=approximation,
        )
    return Average(
        operation=operation,
        layout=alignment.layout,
        sources=sources,
        shares=tuple(shares or (1,) * len(operands)),
        bounded=bounded,
        approximation=approximation,
    )


def _with_channels(layout: Layout, combined: Layout) -> Layout:
    """The layout of one operand with the channels that another one has where it has copies."""
    pairs = zip(layout.axes, combined.axes, strict=True)
    return Layout(
        tuple(
            other if repeats(axis) and has_channels(other) and not has_positions(other) else axis
            for axis, other in pairs
        )
    )


def with_axes(operand: Operand, layout: Layout) -> Operand:
    """The operand seen through another layout of the same field."""
    return replace(operand, shape=layout.shape, layout=layout)
