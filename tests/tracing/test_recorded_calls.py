"""Calls written down by hand, without a model or a graph: records are all that tracing needs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from labeltrace import tracing
from labeltrace.capture.call_records import (
    CallKind,
    CallRecord,
    Location,
    ModelCalls,
    TensorRecord,
)
from labeltrace.flow import Average, LabelField, ValueRef
from labeltrace.layout import BATCH
from labeltrace.rule_api.registry import current
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.walk import trace_calls

SHAPE = (BATCH, 3, 4, 5)


def traced(*calls: tuple[str, str, dict[str, Any]]) -> Trace:
    """The trace of calls: the name of each, the operator, and the arguments.

    The input is named `x`; the last call's result is the output.
    """
    listed = [("x", "", {}), *calls, ("output", "", {"leaves": (ValueRef(calls[-1][0]),)})]
    inputs = {name: _names(arguments.values()) for name, _, arguments in listed}
    kinds = [CallKind.INPUT, *[CallKind.OPERATOR] * len(calls), CallKind.OUTPUT]
    records = {
        name: CallRecord(
            name=name,
            kind=kinds[index],
            index=index,
            operator_names=(operator, operator.rpartition(".")[0]),
            arguments=arguments,
            inputs=inputs[name],
            users=tuple(user for user, read in inputs.items() if name in read),
            value=TensorRecord(SHAPE, (60, 20, 5, 1), 0, storage=index),
            location=Location("", "Model", ""),
        )
        for index, (name, operator, arguments) in enumerate(listed)
    }
    calls_of_model = ModelCalls(records, traced_input="x", channel_dim=1, state={})
    return trace_calls(calls_of_model, current(), cast(Any, None))


def _names(values: Iterable[Any]) -> tuple[str, ...]:
    """The names of the calls whose results are among arguments."""
    found: list[str] = []
    for value in values:
        if isinstance(value, ValueRef):
            found.append(value.name)
        elif isinstance(value, tuple):
            found += _names(value)
    return tuple(dict.fromkeys(found))


def roll(name: str, source: str, shift: int) -> tuple[str, str, dict[str, Any]]:
    arguments = {"self": ValueRef(source), "shifts": (shift,), "dims": (2,)}
    return name, "aten.roll.default", arguments


def add(name: str, first: str, second: str) -> tuple[str, str, dict[str, Any]]:
    arguments = {"self": ValueRef(first), "other": ValueRef(second), "alpha": 1}
    return name, "aten.add.Tensor", arguments


CHAIN = (roll("a", "x", 1), roll("b", "x", 2), add("first", "x", "a"), add("second", "first", "b"))


def test_a_sum_of_sums_is_one_sum() -> None:
    trace = traced(*CHAIN)
    operations = {node.name: str(node.operation) for node in trace.nodes}
    assert operations["first"] == "partial sum"
    assert operations["second"] == "residual"
    step = trace.steps[LabelField("second")]
    assert isinstance(step, Average)
    assert step.shares == (2, 1)


def test_a_sum_that_others_read_stays_a_sum() -> None:
    trace = traced(*CHAIN, add("third", "first", "second"))
    operations = {node.name: str(node.operation) for node in trace.nodes}
    assert operations["first"] == "residual"
    assert operations["second"] == "partial sum"
    second, third = (trace.steps[LabelField(name)] for name in ("second", "third"))
    assert isinstance(second, Average)
    assert isinstance(third, Average)
    assert second.shares == (1, 1)
    assert third.shares == (1, 2)


def test_equal_steps_share_a_field() -> None:
    trace = traced(roll("a", "x", 1), roll("b", "x", 1), add("sum", "a", "b"))
    assert trace.labeled["b"].field == trace.labeled["a"].field
    assert trace.fields_of("b") == trace.fields_of("sum") == ()


def test_tracing_names_no_graph() -> None:
    """Only `trace_graph` reads graphs, and it does so through `labeltrace.capture`."""
    files = list(Path(tracing.__file__).parent.glob("*.py"))
    assert len(files) >= 15
    assert not [file for file in files if "torch.fx" in file.read_text(encoding="utf-8")]
