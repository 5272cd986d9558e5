"""Equal steps are computed once: which fields of a step tell it from another one."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace
from labeltrace import flow
from labeltrace.flow import (
    Aggregate,
    LabelField,
    LabelStep,
    LabelView,
    Mix,
    OneSourceStep,
    Operand,
    Operation,
    ValueFacts,
)
from labeltrace.layout import Arrangement, input_layout

NO_MATTER = {"operation", "facts", "approximation", "as_weights"}
"""What a step is called and what is known of its values: labels do not depend on these."""

LAYOUT = input_layout((2, 3, 5, 7), 1)
ARRANGEMENT = Arrangement((2, 5, 7), ((0,), (1,), (2,)))
STEPS: dict[str, Any] = {
    name: kind
    for name, kind in vars(flow).items()
    if isinstance(kind, type) and issubclass(kind, LabelStep)
}


class NamedTensor(flow.ComputedTensor):
    """A tensor of which no more than its identity is known."""


def example(kind: Any, **changes: object) -> LabelStep:
    """A step whose fields have no meaning, and are all different."""
    values: dict[str, Any] = {part.name: f"some {part.name}" for part in fields(kind)}
    step = kind(**values | changes)
    assert isinstance(step, LabelStep)
    return step


def source(
    facts: ValueFacts = flow.NOTHING_KNOWN, label: str = "x", path: str = "self"
) -> LabelView:
    operand = Operand((path,), (2, 3, 5, 7), LAYOUT, LabelField(label), facts=facts)
    return LabelView(operand, ARRANGEMENT)


def test_the_steps_are_found() -> None:
    assert len(STEPS) >= 20


@pytest.mark.parametrize("name", STEPS)
def test_every_field_counts_but_those_about_values(name: str) -> None:
    kind = STEPS[name]
    step = example(kind)
    assert step.identity() == example(kind).identity()
    for part in fields(kind):
        other = replace(step, **{part.name: "another one"})
        same = part.name in NO_MATTER
        assert (step.identity() == other.identity()) is same, part.name
    assert {part.name for part in fields(kind)} >= NO_MATTER


def test_steps_of_two_kinds_differ() -> None:
    step = example(OneSourceStep)
    assert step.identity() != example(flow.Rearrange).identity()


def test_labels_count_by_field_and_arrangement() -> None:
    step = example(Aggregate, source=source())
    known = ValueFacts(is_gate=True, lower_bound=0.0, holds_key_features=True)
    for same in (source(known), source(path="input")):
        assert step.identity() == example(Aggregate, source=same).identity()
    turned = LabelView(source().operand, Arrangement((2, 5, 7), ((0,), (2,), (1,))))
    for other in (source(label="y"), turned):
        assert step.identity() != example(Aggregate, source=other).identity()
    several, swapped = (source(), source(label="y")), (source(label="y"), source())
    total = example(flow.Average, sources=several)
    assert total.identity() != example(flow.Average, sources=swapped).identity()


def test_other_operands_count_by_the_tensor_that_is_read() -> None:
    one, two = NamedTensor(), NamedTensor()
    step = example(Mix, weights=Operand(("weights",), (5, 5), LAYOUT, tensor=one))
    known = Operand(("other",), (5, 5), tensor=one, facts=ValueFacts(lower_bound=0.0))
    assert step.identity() == example(Mix, weights=known).identity()
    assert step.identity() != example(Mix, weights=replace(known, tensor=two)).identity()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mine(OneSourceStep):
    """A step of somebody else's, with a default of its own and a field that does not matter."""

    operation: Operation = Operation.SPATIAL_MIXING
    shift: int = 0
    remark: str = field(default="", metadata={"in_identity": False})


def test_subclasses_need_not_repeat_what_does_not_matter() -> None:
    step = example(Mine)
    assert step.identity() == replace(step, operation=Operation.RELAYOUT).identity()
    assert step.identity() == replace(step, remark="slow").identity()
    assert step.identity() != replace(step, shift=3).identity()


class Turned(nn.Module):
    """An image and a gate of it, which has the same labels, turned and averaged alike."""

    def forward(self, x: Tensor) -> list[Tensor]:
        gate = torch.sigmoid(x)
        return [x.flip(2), gate.flip(2), gate.flip(3), F.avg_pool2d(x, 2), F.max_pool2d(gate, 2)]


def test_steps_that_differ_in_facts_are_computed_once() -> None:
    trace = labeltrace.trace(Turned(), torch.zeros(2, 3, 6, 8))
    turned, gate, across, mean, maximum = trace.outputs
    assert turned and gate and across and mean and maximum
    assert turned.facts != gate.facts
    assert turned.field == gate.field != across.field
    assert mean.field == maximum.field
    assert len(trace.steps) == 3
