"""Single steps of a trace, isolated: the label image is the direct input of each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from labeltrace.errors import LayoutError
from labeltrace.flow import LabelField, LabelView, OneSourceStep
from labeltrace.inspection.places import Place, field_layout, step_places, with_outputs_at
from labeltrace.layout import fixed_size
from labeltrace.tracing.trace import Trace


def source_place(trace: Trace, field: LabelField) -> Place:
    """The place whose labels a step reads.

    Raises:
        LayoutError: the step reads the labels of several tensors.
    """
    (source,) = step_places(trace, [_one_source_step(trace, field).source.field])
    return source


def source_sizes(trace: Trace, field: LabelField) -> tuple[int, ...]:
    """The sizes of the label field that a step reads, without the batch and K.

    Raises:
        LayoutError: the step reads the labels of several tensors, or the batch is not their first
            dimension.
    """
    sizes = field_layout(source_place(trace, field).layout).shape[1:-1]
    return tuple(map(fixed_size, sizes))


def isolate_steps(trace: Trace, fields: Sequence[LabelField]) -> Trace:
    """A trace of these steps only; each reads the label image instead of the labels of its source.

    The label image is (B, K, *sizes) with the common `source_sizes` of the steps. The outputs are
    the labels (B, N, K) that each step computes.

    Raises:
        LayoutError: a step reads the labels of several tensors, or the steps read different sizes.
    """
    layouts = {field_layout(source_place(trace, field).layout) for field in fields}
    if len(layouts) != 1:
        raise LayoutError(
            f"these steps read fields of {len(layouts)} sizes; isolate them one at a time"
        )
    steps = {
        field: _with_source(_one_source_step(trace, field), trace.input_field) for field in fields
    }
    isolated = replace(trace, steps=steps, input_layout=layouts.pop())
    return with_outputs_at(isolated, step_places(trace, fields))


def _one_source_step(trace: Trace, field: LabelField) -> OneSourceStep:
    step = trace.steps[field]
    if not isinstance(step, OneSourceStep):
        raise LayoutError(
            f"{field.node} joins the labels of several tensors and mixes none; choose a step that "
            f"mixes positions"
        )
    return step


def _with_source(step: OneSourceStep, field: LabelField) -> OneSourceStep:
    operand = replace(step.source.operand, field=field)
    return replace(step, source=LabelView(operand, step.source.arrangement))
