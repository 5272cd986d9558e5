"""The stub for any operator of ATen compiles, answers, and follows content, not an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import labeltrace
from labeltrace.capture.call_records import (
    CallKind,
    CallRecord,
    Location,
    ModelCalls,
    Shape,
    TensorRecord,
)
from labeltrace.errors import UnknownOperatorError
from labeltrace.flow import LabelField, ValueRef
from labeltrace.layout import BATCH, input_layout
from labeltrace.tracing.apply import run_rule
from labeltrace.tracing.diagnostics import unknown_operator
from labeltrace.tracing.environment import Environment
from labeltrace.tracing.operands import operator_call
from labeltrace.tracing.problems import CallGraph, problems_error
from labeltrace.tracing.rule_stubs import rule_stubs
from labeltrace.tracing.values import Traced, Value

SHAPE = (BATCH, 3, 5, 7)
LAYOUT = input_layout(SHAPE, 1)
NOWHERE = Location("", "", "")


def schemas() -> Iterator[torch._C.FunctionSchema]:
    """The schema of every overload of ATen that takes a tensor, except those that write results
    into arguments made for it."""
    for schema in torch._C._jit_get_all_schemas():
        takes = any("Tensor" in str(argument.type) for argument in schema.arguments)
        outs = any(argument.is_out for argument in schema.arguments)
        if schema.name.startswith("aten::") and takes and not outs:
            yield schema


def tensor(number: int, shape: Shape, is_floating: bool = True) -> TensorRecord:
    return TensorRecord(shape, (0,) * len(shape), 0, number, is_floating)


class Example:
    """A call of an operator, all of whose tensors come from the image.

    integer: which of its tensors has integers, None for none.
    """

    def __init__(self, schema: Any, output: Shape, integer: int | None) -> None:
        self.names: list[str] = []
        arguments = {argument.name: self._argument(argument) for argument in schema.arguments}
        results = [one for one in schema.returns if "Tensor" in str(one.type)]
        operator = schema.name.replace("::", ".")
        self.record = CallRecord(
            name="call",
            kind=CallKind.OPERATOR,
            index=len(self.names),
            operator_names=(operator,),
            arguments=arguments,
            inputs=tuple(self.names),
            users=(),
            value=tuple(tensor(100 + i, output) for i in range(len(results))),
            location=NOWHERE,
        )
        self.integer = None if integer is None else self.names[integer]
        inputs = {
            name: CallRecord(
                name=name,
                kind=CallKind.INPUT,
                index=index,
                operator_names=(),
                arguments={},
                inputs=(),
                users=("call",),
                value=tensor(index, SHAPE, name != self.integer),
                location=NOWHERE,
            )
            for index, name in enumerate(self.names)
        }
        self.calls = ModelCalls({**inputs, "call": self.record}, self.names[0], 1, {})
        self.environment = Environment(self.calls)
        for name in self.names:
            value = Value(LAYOUT, LabelField(name), ValueRef(name))
            self.environment.assign(name, Traced((value,)))

    def _argument(self, argument: Any) -> Any:
        text = str(argument.type)
        if "Tensor" not in text:
            return None
        if "List" in text:
            return (self._tensor(), self._tensor())
        return self._tensor()

    def _tensor(self) -> ValueRef:
        self.names.append(f"t{len(self.names)}")
        return ValueRef(self.names[-1])


def check_stub(example: Example) -> str:
    """What the stub follows; empty where no stub is offered."""
    unknown = unknown_operator(example.record, LAYOUT, example.environment)
    if not unknown.stub.outputs:
        return ""
    names: dict[str, Any] = {"model": nn.ReLU()}
    exec(rule_stubs([unknown.stub]), names)
    (rule,) = names["rules"].values()
    call = operator_call(example.record, example.environment)
    flows = run_rule(rule, call, example.record)
    assert len(flows) == len(example.record.tensors)
    followed: Any = eval("arguments" + unknown.stub.source, {"arguments": example.record.arguments})
    return str(followed.name)


@pytest.mark.parametrize("output", [SHAPE, (BATCH, 3, 7)], ids=["same shape", "other shape"])
def test_every_stub_answers_and_follows_content(output: Shape) -> None:
    offered = 0
    for schema in schemas():
        count = len(Example(schema, output, None).names)
        for integer in (None, *range(min(count, 4))) if count > 1 else (None,):
            example = Example(schema, output, integer)
            followed = check_stub(example)
            assert followed or not example.record.tensors, str(schema)
            assert not followed or followed != example.integer, str(schema)
            offered += bool(followed)
    assert offered > 1000


def test_an_operator_without_a_tensor_gets_words() -> None:
    for name in ("aten::item", "aten::is_nonzero", "aten::equal"):
        schema = next(schema for schema in schemas() if schema.name == name)
        example = Example(schema, SHAPE, None)
        unknown = unknown_operator(example.record, LAYOUT, example.environment)
        error = problems_error([], [unknown], CallGraph(example.calls, {}))
        assert isinstance(error, UnknownOperatorError)
        assert "no rule can answer, since it returns no tensor" in str(error)
        assert "def " not in str(error)


@pytest.mark.parametrize("place", ["index", "constant index"])
def test_a_gather_follows_its_source(place: str) -> None:
    class Gather(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            flat = images.flatten(2)
            order = torch.arange(35).flip(0).expand(flat.shape)
            order = flat.argmax(2, keepdim=True).expand(flat.shape) if place == "index" else order
            return flat.gather(2, order)

    images = torch.rand(2, 3, 5, 7)
    with pytest.raises(UnknownOperatorError, match=r'call\["self"\]'):
        labeltrace.trace(Gather(), images)


def test_an_index_into_a_constant_gets_words() -> None:
    """Nothing but the index comes from the image: there is no label to move."""

    class LookUp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.rand(35))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.table.take(images.flatten(2).argmax(2))

    with pytest.raises(UnknownOperatorError, match="returns no tensor with content"):
        labeltrace.trace(LookUp(), torch.rand(2, 3, 5, 7))
