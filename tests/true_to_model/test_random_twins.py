"""Random models with random Python beside their layers: twins are alike on every engine."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.random_architectures.examples import PARTS as FUZZ_PARTS
from tests.random_architectures.examples import examples
from tests.true_to_model.case import Case
from tests.true_to_model.engines import ENGINES
from tests.true_to_model.random_parts import CHANNELS, COLUMNS, PARTS, ROWS, VARIANTS
from tests.true_to_model.twins import check_twins


@dataclass(frozen=True)
class Plan:
    """A random model, and its calls.

    parts: the name and variant of each part.
    head: what is made of the last map.
    training: the mode of each call.
    gradients: whether each call has gradients.
    images: the seed of each call's images; two calls may have the same.
    """

    parts: tuple[tuple[str, int], ...]
    head: str
    training: tuple[bool, ...]
    gradients: tuple[bool, ...]
    images: tuple[int, ...]

    def case(self) -> Case:
        return Case(
            str(self),
            build=lambda: Model(self),
            calls=len(self.images),
            inputs=self.inputs,
            change=change,
            context=self.context,
        )

    def inputs(self, index: int) -> tuple[Any, ...]:
        generator = torch.Generator().manual_seed(self.images[index])
        return (torch.randn(2, 3, 2 * ROWS, 2 * COLUMNS, generator=generator),)

    def context(self, index: int) -> AbstractContextManager[Any]:
        return nullcontext() if self.gradients[index] else torch.no_grad()


class Model(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.stem = nn.Conv2d(3, CHANNELS, 2, 2)
        self.parts = nn.Sequential(*(PARTS[name](variant) for name, variant in plan.parts))
        self.train(plan.training[0])

    def forward(self, x: Tensor) -> Any:
        x = self.parts(self.stem(x))
        if self.plan.head == "map":
            return x
        mean = x.mean((2, 3))
        return mean if self.plan.head == "mean" else {"map": [x], "mean": mean, "number": 3}


def change(model: Model, index: int) -> None:
    model.train(model.plan.training[index])
    for part in model.parts:
        part.change(index)


def flags(count: int) -> st.SearchStrategy[tuple[bool, ...]]:
    """Mostly true: with gradients and in train mode more can go wrong."""
    return st.tuples(*[st.sampled_from([True, True, True, False])] * count)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    calls = draw(st.integers(2, 4))
    part = st.tuples(st.sampled_from(list(PARTS)), st.integers(0, VARIANTS - 1))
    return Plan(
        parts=tuple(draw(st.lists(part, min_size=1, max_size=5))),
        head=draw(st.sampled_from(["map", "mean", "both"])),
        training=draw(flags(calls)),
        gradients=draw(flags(calls)),
        images=tuple(draw(st.lists(st.integers(0, 3), min_size=calls, max_size=calls))),
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("part", range(FUZZ_PARTS))
@examples(60)
@given(plans())
def test_random_twins_are_alike(part: int, engine: Any, plan: Plan) -> None:
    check_twins(plan.case(), engine)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("variant", range(VARIANTS))
def test_each_part_alone(name: str, variant: int) -> None:
    """So that none of them is left to chance."""
    plan = Plan(((name, variant),), "map", (True, True, False), (True, True, False), (0, 1, 0))
    for engine in ENGINES:
        check_twins(plan.case(), engine)
