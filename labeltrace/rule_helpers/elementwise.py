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
    ValueFacts,
    Weights,
)
from labeltrace.layout import (
    Layout,
    Size,
    align_axes,
    expand,
    has_channels,
    has_positions,
    is_repeated,
)
from labeltrace.rule_api.call import Shape
from labeltrace.rule_helpers.key_value_weights import as_channel_weights
from labeltrace.rule_helpers.output_facts import (
    after_nonlinear,
    with_lower_bound,
    with_origins,
)
from labeltrace.rule_helpers.own_statistics import product_origins


def carry(
    source: Operand,
    output: Shape,
    *,
    operation: Operation = Operation.POINTWISE,
    is_gate: bool | None = None,
    lower_bound: float | None = None,
    approximation: str = "",
) -> Flow:
    """The operand's label as it is, also where a constant broadcasts the output to more axes.

    `is_gate` and `lower_bound`: see `relayout`.
    """
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
    """The operand's label through another layout of the same field; weights stay weights.

    `is_gate` says of a non-linear step whether its output is a gate; None for linear steps. No
    value of the output lies below `lower_bound`; None where the rule knows nothing better than what
    the step leaves of the operand's lower bound.
    """
    flow: Flow
    if source.labeled:
        flow = Carry(operation=operation, layout=layout, source=source, approximation=approximation)
        flow = flow if is_gate is None else after_nonlinear(flow, is_gate=is_gate)
    else:
        flow = _weights(source, layout, operation, is_linear=is_gate is None)
        flow = replace(flow, approximation=approximation)
    return flow if lower_bound is None else with_lower_bound(flow, lower_bound)


def _weights(source: Operand, layout: Layout, operation: Operation, *, is_linear: bool) -> Weights:
    """Weights after a step on each of them; a non-linear one makes weights of keys times values."""
    moved = operation is Operation.RELAYOUT
    facts = source.facts.moved() if moved else source.facts.after_linear()
    if is_linear:
        return Weights(layout=layout, facts=facts)
    if source.key_value_product is not None:
        layout = as_channel_weights(source.key_value_product, layout)
    facts = facts.after_nonlinear(is_gate=False, lower_bound=facts.lower_bound)
    return Weights(layout=layout, facts=facts)


def combine(
    operands: Sequence[Operand],
    output: Shape,
    *,
    operation: Operation,
    shares: Sequence[Size] | None = None,
    is_gate: bool | None = None,
    approximation: str = "",
) -> Flow:
    """`Norm(sum_i s_i Y_i)` over broadcast traced operands; with weights among them, weights."""
    if any(operand.key_value_product is not None for operand in operands):
        raise LayoutError(
            "keys times values, summed over tokens, are combined with another tensor before they "
            "meet the queries; linear attention is followed only if the product goes straight to "
            "them"
        )
    alignment = align_axes([operand.traced_layout for operand in operands], output)
    if not all(operand.labeled for operand in operands):
        facts = ValueFacts.combined_weights(op.facts for op in operands if op.is_weights)
        return Weights(layout=alignment.layout, facts=facts, approximation=approximation)
    sources = tuple(
        LabelView(operand, alignment.arrangement(index)) for index, operand in enumerate(operands)
    )
    if len({labels.identity for labels in sources}) == 1:
        source = min(operands, key=lambda operand: operand.is_gate)  # a gate if all are
        carried = relayout(
            source,
            _prefer_channels(expand(source.traced_layout, output), alignment.layout),
            operation=operation,
            is_gate=is_gate,
            approximation=approximation,
        )
        if operation is not Operation.POINTWISE:
            return carried
        return with_origins(carried, product_origins(source, operands, output))
    flow = Average(
        operation=operation,
        layout=alignment.layout,
        sources=sources,
        shares=tuple(shares or (1,) * len(operands)),
        approximation=approximation,
    )
    return flow if is_gate is None else after_nonlinear(flow, is_gate=is_gate)


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
