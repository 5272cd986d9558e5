"""Rerooting: single steps of a trace, with label images that enter right before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from labeltrace.errors import LayoutError
from labeltrace.flow import LabelField, LabelView, OneSourceStep
from labeltrace.inspection.places import Place, field_layout, step_places, with_outputs_at
from labeltrace.tracing.trace import Trace


def source_place(trace: Trace, field: LabelField) -> Place:
    """The place whose labels a step reads.

    Raises:
        LayoutError: the step reads the labels of several.
    """
    (source,) = step_places(trace, [_source(_single(trace, field))])
    return source


def source_sizes(trace: Trace, field: LabelField) -> tuple[int, ...]:
    """The sizes of the label field that a step reads, the batch and K left out.

    Raises:
        LayoutError: the step reads the labels of several, or the batch is not their first
            dimension.
    """
    return field_layout(source_place(trace, field).layout).shape[1:-1]


def isolate_steps(trace: Trace, fields: Sequence[LabelField]) -> Trace:
    """Steps alone, each of which reads the label image instead of the labels of its source.

    The label image is (B, K, *sizes) with the :func:`source_sizes` that all of the steps have.  The
    outputs are the labels (B, N, K) that each step gives.

    Raises:
        LayoutError: a step reads the labels of several, or they are of other sizes.
    """
    layouts = {field_layout(source_place(trace, field).layout) for field in fields}
    if len(layouts) != 1:
        raise LayoutError(f"these steps read fields of {len(layouts)} sizes; take them one by one")
    steps = {field: _moved(_single(trace, field), trace.input_field) for field in fields}
    alone = replace(trace, steps=steps, input_layout=layouts.pop())
    return with_outputs_at(alone, step_places(trace, fields))


def _single(trace: Trace, field: LabelField) -> OneSourceStep:
    step = trace.steps[field]
    if not isinstance(step, OneSourceStep):
        raise LayoutError(f"{field.node} joins the labels of several tensors; it mixes none")
    return step


def _source(step: OneSourceStep) -> LabelField:
    field = step.source.operand.field
    assert isinstance(field, LabelField)
    return field


def _moved(step: OneSourceStep, field: LabelField) -> OneSourceStep:
    operand = replace(step.source.operand, field=field)
    return replace(step, source=LabelView(operand, step.source.arrangement))
