"""From a flow to what is known of the output that it describes."""

from __future__ import annotations

from labeltrace.capture.call_records import CallRecord
from labeltrace.flow import (
    Carry,
    Constant,
    Flow,
    LabelField,
    LabelStep,
    Origin,
    TensorSource,
    ValueFacts,
    ValueRef,
    Weights,
)
from labeltrace.layout import simplify
from labeltrace.tracing.environment import Environment
from labeltrace.tracing.operands import name_at
from labeltrace.tracing.regions import Region
from labeltrace.tracing.residual_sums import count_summands
from labeltrace.tracing.values import Recomputed, Value


def operator_values(
    flows: tuple[Flow, ...], record: CallRecord, environment: Environment
) -> tuple[Value | None, ...]:
    """The outputs of an operator, None for constants; label steps are added to the environment."""
    return tuple(
        _weights(flow, record, environment)
        if isinstance(flow, Weights)
        else _labeled(flow, LabelField(record.name, index), record, environment)
        for index, flow in enumerate(flows)
    )


def region_value(flow: Flow, region: Region, index: int, environment: Environment) -> Value | None:
    """One output of a module or function with a rule of its own; it is no part of a larger sum."""
    record = environment.calls[region.outputs[index]]
    if isinstance(flow, Weights):
        return Value(simplify(flow.layout), None, ValueRef(record.name))
    field = LabelField(region.last.name, index)
    return _labeled(flow, field, record, environment, may_be_summand=False)


def _labeled(
    flow: Flow,
    target: LabelField,
    record: CallRecord,
    environment: Environment,
    *,
    may_be_summand: bool = True,
) -> Value | None:
    """The value of an output that carries labels; `target` is the field of a new label step."""
    match flow:
        case Carry():
            field = flow.source.field
            assert field is not None
        case LabelStep():
            field = environment.field_of(flow, target)
        case _:
            assert isinstance(flow, Constant)
            return None
    return Value(
        layout=simplify(flow.layout),
        field=field,
        source=ValueRef(record.name),
        facts=with_own_origin(flow.output_facts, record.name, target.output),
        summands=count_summands(flow, record, environment) if may_be_summand else 1,
        as_weights=_weights(flow.as_weights, record, environment) if flow.as_weights else None,
    )


def with_own_origin(facts: ValueFacts, name: str, output: int = 0) -> ValueFacts:
    """The facts of a tensor, which is a point-wise function of itself."""
    return facts.with_origins((Origin((name, output)), *facts.origins))


def _weights(flow: Weights, record: CallRecord, environment: Environment) -> Value:
    source = _source(flow, record, environment)
    return Value(simplify(flow.layout), field=None, source=source, facts=flow.output_facts)


def _source(flow: Weights, record: CallRecord, environment: Environment) -> TensorSource:
    """Where labels read these weights: computed without the dropout before them."""
    substitutes: dict[str, TensorSource] = {}
    for name in record.inputs:
        value = environment.value(name)
        if value is not None and value.field is None and value.source != ValueRef(name):
            substitutes[name] = value.source
    if flow.before_dropout is not None:
        name = name_at(record, flow.before_dropout.path)
        return substitutes.get(name, ValueRef(name))
    return Recomputed(record.name, substitutes) if substitutes else ValueRef(record.name)
