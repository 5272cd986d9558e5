"""Which of the model's tensors the label steps of a trace read, needed by an output or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from labeltrace.capture.call_records import ModelCalls
from labeltrace.flow import LabelView, Operand, TensorSource, ValueRef
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.values import Recomputed


def tensors_read(trace: Trace) -> frozenset[str]:
    """The names of the calls and inputs whose tensors some label step reads.

    A step depends on the calls before it alone. So two runs of a model that make the same first
    calls read the same tensors up to there, whatever they do afterwards.
    """
    found: set[str] = set()
    for step in trace.steps.values():
        for operand in _operands(step):
            if operand.tensor is not None:
                found.update(_names(operand.tensor, trace.calls))
    return frozenset(found)


def _operands(value: Any) -> Iterator[Operand]:
    """The operands in a step that serve as weights or indices; labels are read as labels."""
    if isinstance(value, LabelView):
        return
    if isinstance(value, Operand):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _operands(item)
    elif is_dataclass(value):
        for entry in fields(value):
            yield from _operands(getattr(value, entry.name))


def _names(source: TensorSource, calls: ModelCalls) -> Iterator[str]:
    if isinstance(source, ValueRef):
        yield source.name
    elif isinstance(source, Recomputed):
        yield from (name for name in calls[source.call].inputs if name not in source.substitutes)
        for other in source.substitutes.values():
            yield from _names(other, calls)
