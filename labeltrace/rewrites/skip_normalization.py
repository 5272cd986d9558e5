"""Skip the normalization of weights that are the output of a softmax over what they mix."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from labeltrace.capture.call_records import CallRecord, ModelCalls
from labeltrace.flow import LabelField, LabelStep, Mix, TensorSource, ValueRef
from labeltrace.rewrites.index_slice import Rows
from labeltrace.rewrites.steps import Steps
from labeltrace.tracing.values import Recomputed

_SOFTMAX: Final = ("aten.softmax.int", "aten._softmax.default")
_DROPOUT: Final = "aten.dropout.default"


def skip_normalization(steps: Steps, calls: ModelCalls) -> Steps:
    """Mark the mixing steps whose weights have rows that sum to one already."""
    overwritten = calls.overwritten_storages()
    left: dict[LabelField, LabelStep] = {}
    for field, step in steps.items():
        left[field] = step
        softmax = _softmax(step.weights.tensor, calls) if isinstance(step, Mix) else None
        if not isinstance(step, Mix) or softmax is None or softmax.tensor is None:
            continue
        kept = softmax.tensor.storage not in overwritten
        if kept and _mixes_what_sums_to_one(step, softmax):
            left[field] = replace(step, rows_sum_to_one=True)
    return left


def _softmax(source: TensorSource | None, calls: ModelCalls) -> CallRecord | None:
    """The softmax whose output, or some rows of it, the weights are; None if there is none."""
    while isinstance(source, Rows):
        source = source.tensor
    if not isinstance(source, (ValueRef, Recomputed)):
        return None
    call = calls[source.call if isinstance(source, Recomputed) else source.name]
    while _drops_nothing(call):
        call = calls[call.arguments["input"].name]
    return call if call.operator_names[0] in _SOFTMAX else None


def _drops_nothing(call: CallRecord) -> bool:
    if call.operator_names[0] != _DROPOUT:
        return False
    return not call.arguments["train"] or call.arguments["p"] == 0


def _mixes_what_sums_to_one(step: Mix, softmax: CallRecord) -> bool:
    dim = softmax.arguments["dim"]
    equation = step.equation
    mixed_away = {name for name in equation.labels if name not in equation.result}
    inside = set(equation.weights[dim % len(equation.weights)])
    columns = set(equation.columns)
    return columns == mixed_away and columns <= inside and inside.isdisjoint(equation.result)
