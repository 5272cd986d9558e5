"""Element-wise products of two tensors from the image: a gate is ignored (contract, point 8)."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from labeltrace.flow import Flow, Operand, Operation, Weights
from labeltrace.layout import Layout, expand
from labeltrace.rule_api.call import Shape
from labeltrace.rule_helpers.elementwise import combine, relayout
from labeltrace.rule_helpers.output_facts import with_key_features, with_origins
from labeltrace.rule_helpers.own_statistics import product_origins


def product(first: Operand, second: Operand, output: Shape, *, operation: Operation) -> Flow:
    """The product of two streams, or of a stream and weights.

    The label of a gate is ignored; the labels of two equal streams are averaged.
    """
    combined = combine((first, second), output, operation=operation, is_gate=False)
    assert combined.layout is not None
    content = _gated_operand(first, second, combined.layout)
    if content is None or not content.labeled:
        return with_key_features(combined, False)
    flow = relayout(content, expand(content.traced_layout, output), operation=operation)
    if operation is Operation.POINTWISE:
        flow = with_origins(flow, product_origins(content, (first, second), output))
    as_weights = combined if isinstance(combined, Weights) else None
    return with_key_features(replace(flow, as_weights=as_weights), False)


def _gated_operand(first: Operand, second: Operand, layout: Layout) -> Operand | None:
    """The operand whose label the product keeps; None where the two are equals.

    Args:
        first: one operand.
        second: the other one.
        layout: the layout of the product.
    """
    count = prod(layout.field_sizes)
    whole = [op for op in (first, second) if prod(op.traced_layout.field_sizes) == count]
    if len(whole) == 1:  # the other one lacks positions that this one has
        return whole[0]
    if not whole:
        return None
    if first.labeled != second.labeled:  # weights are a gate for the content
        return first if first.labeled else second
    if first.is_gate != second.is_gate:  # after a sigmoid, a softmax or the like
        return second if first.is_gate else first
    return None
