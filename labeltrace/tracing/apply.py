"""One call under its rule: the flows, and how they join with what was computed before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from labeltrace.capture.call_records import CallRecord
from labeltrace.errors import LayoutError
from labeltrace.flow import Carry, Flow, LinearMix, Mix, Weights
from labeltrace.layout import shape_text
from labeltrace.rule_api.call import Call, Rule
from labeltrace.rule_api.registry import rule_name
from labeltrace.tracing.environment import Environment
from labeltrace.tracing.flow_checks import check_flows
from labeltrace.tracing.merged_writes import merge_writes
from labeltrace.tracing.operands import operator_call
from labeltrace.tracing.residual_sums import merge_sums, merged_inputs


@dataclass(frozen=True, slots=True)
class Applied:
    """What a rule gave for one call.

    Attributes:
        flows: a flow for each output.
        partial_sums: the names of inputs that are sums and became part of this call's sum.
    """

    flows: tuple[Flow, ...]
    partial_sums: frozenset[str]


def apply_rule(record: CallRecord, rule: Rule, call: Call, environment: Environment) -> Applied:
    """Apply the rule of an operator to its call.

    Raises:
        LayoutError: the rule cannot follow positions, or its answer does not fit the call.
    """
    flows = run_rule(rule, call, record)
    if any(_may_be_weights(name, environment) for name in record.inputs):
        flows = _with_second_reading(record, rule, flows, environment)
    flows = tuple(_after_write(flow, record) for flow in flows)
    merged = tuple(
        merge_writes(merge_sums(flow, record, environment), environment) for flow in flows
    )
    return Applied(merged, merged_inputs(merged, record, environment))


def run_rule(rule: Rule, call: Call, record: CallRecord) -> tuple[Flow, ...]:
    """The flows that a rule returns, checked against the call.

    Raises:
        LayoutError: as above.
    """
    with _rule_named(rule, call, record):
        returned = rule(call)
    flows = returned if isinstance(returned, tuple) else (returned,)
    check_flows(flows, call, rule)
    return flows


@contextlib.contextmanager
def _rule_named(rule: Rule, call: Call, record: CallRecord) -> Iterator[None]:
    """Add a note of the rule and its call to an error in the rule's own code."""
    try:
        yield
    except LayoutError:
        raise  # raised on purpose; reported together with all others
    except Exception as error:
        error.add_note(
            f"raised in the rule {rule_name(rule)} for {record.name} = {call.operator}, "
            f"with the arguments {', '.join(call.arguments)} -> "
            f"{', '.join(map(shape_text, call.outputs))}\n  in {record.location}"
        )
        raise


def _may_be_weights(name: str, environment: Environment) -> bool:
    value = environment.value(name)
    return value is not None and value.as_weights is not None


def _with_second_reading(
    record: CallRecord, rule: Rule, flows: tuple[Flow, ...], environment: Environment
) -> tuple[Flow, ...]:
    """The flows, with what the rule answers where streams are read as mixing weights.

    If they mix another stream then, that is what the product does. Linear steps keep both readings.
    """
    try:
        others = run_rule(rule, operator_call(record, environment, as_weights=True), record)
    except LayoutError:  # they are no weights
        return flows
    return tuple(map(_prefer_mixing, flows, others))


def _prefer_mixing(flow: Flow, as_weights: Flow) -> Flow:
    """One flow for both readings of the operands."""
    mixes = isinstance(as_weights, Mix) and isinstance(flow, Weights)
    if mixes or isinstance(as_weights, LinearMix):
        return as_weights
    is_linear = isinstance(flow, Carry) and flow.is_linear
    if is_linear and isinstance(as_weights, Weights) and flow.as_weights is None:
        return replace(flow, as_weights=as_weights)
    return flow


def _after_write(flow: Flow, record: CallRecord) -> Flow:
    """Dropout in place leaves no probabilities to read."""
    if isinstance(flow, Weights) and flow.before_dropout is not None and record.overwritten:
        reason = "dropout in place: the probabilities before it are gone"
        return replace(flow, before_dropout=None, approximation=reason)
    return flow
