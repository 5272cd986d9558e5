"""The label steps of a trace, as all rewrites take and return them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from labeltrace.flow import Average, Join, LabelField, LabelStep, LabelView, OneSourceStep, Write
from labeltrace.layout import Arrangement, Size

Steps = Mapping[LabelField, LabelStep]
"""Label steps by the field that each computes, producers first."""


def needed_fields(steps: Steps, outputs: frozenset[LabelField]) -> frozenset[LabelField]:
    """The fields that the outputs depend on, themselves and the input's included."""
    needed: set[LabelField] = set()
    waiting = list(outputs)
    while waiting:
        field = waiting.pop()
        if field in needed:
            continue
        needed.add(field)
        if field in steps:
            waiting += [labels.field for labels in steps[field].labels]
    return frozenset(needed)


def with_labels(step: LabelStep, change: Callable[[LabelView], LabelView]) -> LabelStep:
    """The step with other labels: `change` replaces each one that it reads.

    Raises:
        TypeError: the step is of an unknown class; add a case for it here.
    """
    match step:
        case Average():
            return replace(step, sources=tuple(map(change, step.sources)))
        case Join() | Write():
            pieces = tuple(piece and change(piece) for piece in step.pieces)
            return replace(step, pieces=pieces)
        case OneSourceStep():
            return replace(step, source=change(step.source))
    raise TypeError(
        f"{type(step).__name__} reads labels in a way that no rewrite knows; add a case to "
        "labeltrace.rewrites.steps.with_labels"
    )


def as_stored(labels: LabelView, field: LabelField, sizes: tuple[Size, ...]) -> LabelView:
    """The labels of another field, whose dimensions are already those that the step needs."""
    groups = tuple((dim,) for dim in range(len(sizes)))
    return LabelView(replace(labels.operand, field=field), Arrangement(sizes, groups))
