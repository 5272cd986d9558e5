"""Element-wise steps: what becomes of the labels of broadcast operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from labeltrace.errors import LayoutError
from labeltrace.flow import (
    Average,
    Carry,
    Flow,
    LabelView,
    Operand,
    Operation,
    Weights,
    product_after_other_step,
)
from labeltrace.layout import Layout, align_axes, expand, has_channels, has_positions, is_repeated
from labeltrace.rule_api.call import Shape
from labeltrace.rule_helpers.key_value_product import KeyValueProduct


def carry(
    source: Operand,
    output: Shape,
    *,
    operation: Operation = Operation.POINTWISE,
    is_gate: bool | None = None,
    lower_bound: float | None = None,
    approximation: str = "",
) -> Flow:
    """The operand's label as it is, also where a constant broadcasts the output to more axes."""
    return relayout(
        source,
        expand(source.traced_layout, output),
        operation=operation,
        is_gate=is_gate,
        lower_bound=lower_bound,
        approximation=approximation,
    )


def relayout(
    source: Operand,
    layout: Layout,
    *,
    operation: Operation,
    is_gate: bool | None = None,
    lower_bound: float | None = None,
    approximation: str = "",
) -> Flow:
    """The operand's label through another layout of the same field; weights stay weights."""
    if source.labelled:
        return Carry(
            operation=operation,
            layout=layout,
            source=source,
            is_gate=is_gate,
            lower_bound=lower_bound,
            approximation=approximation,
        )
    pending = source.key_value_product
    if isinstance(pending, KeyValueProduct) and is_gate is not None:  # a non-linear step
        layout, pending = pending.as_channel_weights(layout), None
    if lower_bound is None and operation is Operation.RELAYOUT:
        lower_bound = source.lower_bound
    factors = product_after_other_step([source]) if is_gate is None else None
    return Weights(
        layout=layout,
        lower_bound=lower_bound,
        key_value_product=pending,
        approximation=approximation,
        product=factors,
    )


def combine(
    operands: Sequence[Operand],
    output: Shape,
    *,
    operation: Operation,
    shares: Sequence[int] | None = None,
    is_gate: bool | None = None,
    approximation: str = "",
) -> Flow:
    """``Norm(sum_i s_i Y_i)`` over broadcast traced operands; with weights among them, weights."""
    if any(operand.key_value_product is not None for operand in operands):
        raise LayoutError("keys times values, summed over positions, join another stream")
    alignment = align_axes([operand.traced_layout for operand in operands], output)
    if not all(operand.labelled for operand in operands):
        factors = product_after_other_step(operand for operand in operands if operand.is_weights)
        return Weights(layout=alignment.layout, approximation=approximation, product=factors)
    sources = tuple(
        LabelView(operand, alignment.arrangement(index)) for index, operand in enumerate(operands)
    )
    if len({(labels.operand.field, labels.arrangement) for labels in sources}) == 1:
        source = min(operands, key=lambda operand: operand.is_gate)  # a gate if all are
        return relayout(
            source,
            _prefer_channels(expand(source.traced_layout, output), alignment.layout),
            operation=operation,
            is_gate=is_gate,
            approximation=approximation,
        )
    return Average(
        operation=operation,
        layout=alignment.layout,
        sources=sources,
        shares=tuple(shares or (1,) * len(operands)),
        is_gate=is_gate,
        approximation=approximation,
    )


def _prefer_channels(layout: Layout, combined: Layout) -> Layout:
    """The layout of one operand with the channels that another one has where it has copies."""
    pairs = zip(layout.axes, combined.axes, strict=True)
    return Layout(
        tuple(
            other
            if is_repeated(axis) and has_channels(other) and not has_positions(other)
            else axis
            for axis, other in pairs
        )
    )


def with_layout(operand: Operand, layout: Layout) -> Operand:
    """The operand seen through another layout of the same field."""
    return replace(operand, shape=layout.shape, layout=layout)
