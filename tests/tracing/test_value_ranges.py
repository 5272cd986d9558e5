"""What a trace knows of an activation's values: a number that none lies below, and gates.

Features that are never negative make linear attention exact, and a gate gives its labels away; both
are compared with the values that the functions take over a fine grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace
from labeltrace.tracing.values import Value

Functions = Mapping[str, Callable[[Tensor], Tensor]]

KNOWN: Functions = {
    "abs": torch.abs,
    "cos": torch.cos,
    "erf": torch.erf,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "gelu": F.gelu,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "relu": torch.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "sin": torch.sin,
    "softplus": F.softplus,
    "square of sqrt": lambda x: torch.square(torch.sqrt(torch.relu(x))),
    "tanh": torch.tanh,
    "hardtanh": F.hardtanh,
    "hardtanh from -0.5": lambda x: F.hardtanh(x, -0.5, 2.0),
    "clamp both": lambda x: x.clamp(0.25, 3),
    "clamp_min": lambda x: x.clamp_min(-2),
    "clamp from": lambda x: x.clamp(min=-0.75),
    "elu": F.elu,
    "elu of 0.5": lambda x: F.elu(x, 0.5),
    "selu's elu": lambda x: torch.ops.aten.elu(x, 1.5, 2.0, 1.0),
    "celu of 2": lambda x: F.celu(x, 2.0),
    "even power": lambda x: x**4,
    "softmax": lambda x: x.softmax(1),
    "copies": lambda x: torch.sin(x).double().contiguous().clone(),
    "dropout": lambda x: F.dropout(torch.relu(x), 0.5, training=False),
    "elu and one": lambda x: F.elu(x) + 1,
    "number added": lambda x: torch.add(torch.tanh(x), 0.5, alpha=3),
    "number subtracted": lambda x: torch.sub(torch.tanh(x), 0.5, alpha=3),
    "times a number": lambda x: torch.tanh(x) * 0.5,
    "over a number": lambda x: torch.tanh(x) / 0.25,
    "padded by zeros": lambda x: F.pad(torch.relu(x) + 1, (1, 1)),
    "padded by a number": lambda x: F.pad(torch.tanh(x), (1, 1), value=-3.0),
    "joined": lambda x: torch.cat([torch.tanh(x), torch.sin(x) - 1], 1),
    "moved": lambda x: torch.tanh(x).flip(2).roll(3, 3).mT,
}
"""Here the number is that of the values."""

BELOW: Functions = {
    "gated half": lambda x: F.glu(torch.cat([torch.sin(x), torch.cos(x)], 1), 1),
    "positive half": lambda x: F.glu(torch.cat([torch.exp(x) + 1, torch.relu(x) + 1], 1), 1),
}
"""Here it lies below them."""

UNKNOWN: Functions = {
    "image": lambda x: x,
    "neg": lambda x: -torch.relu(x),
    "clamp_max": lambda x: x.clamp_max(3),
    "clamp to": lambda x: x.clamp(max=3),
    "odd power": lambda x: x**3,
    "log_softmax": lambda x: x.log_softmax(1),
    "log": lambda x: torch.log(torch.relu(x) + 1e-3),
    "dropout": lambda x: F.dropout(torch.tanh(x), 0.5, training=False),
    "times a negative number": lambda x: torch.relu(x) * -2,
    "over a negative number": lambda x: torch.relu(x) / -2,
    "subtracted from a number": lambda x: 3 - torch.relu(x),
    "remainder": lambda x: torch.relu(x) % 3 - 3,
    "rounded quotient": lambda x: torch.div(torch.sin(x), 2, rounding_mode="floor"),
    "times a parameter": lambda x: torch.relu(x) * torch.full((1,), -3.0),
    "plus a parameter": lambda x: torch.relu(x) + torch.full((1,), -3.0),
    "joined with a constant": lambda x: torch.cat(
        [torch.relu(x), torch.full((len(x), 3, 4, 41), -9.0)], 2
    ),
}
"""Here nothing is known."""

GATES = {
    "clamp within": lambda x: x.clamp(-0.5, 0.25),
    "clamp to one": lambda x: x.clamp(-1, 1),
    "hardtanh": F.hardtanh,
    "sigmoid of a copy": lambda x: torch.sigmoid(x).clone() * 1,
    "softmax": lambda x: x.softmax(1),
}
NO_GATES = {
    "clamp below": lambda x: x.clamp(-1.5, 1),
    "clamp above": lambda x: x.clamp(-1, 1.5),
    "clamp from": lambda x: x.clamp(min=0),
    "relu": torch.relu,
    "elu": F.elu,
    "power": lambda x: x**2,
    "gate beside a stream": lambda x: torch.cat([torch.sigmoid(x), x], 1),
    "gate and a stream": lambda x: torch.sigmoid(x) + x,
    "gelu of a gate": lambda x: F.gelu(torch.sigmoid(x)),
    "channels weighed by numbers": lambda x: (x * torch.arange(123.0).view(3, 1, 41)).sum(1),
    "streams multiplied, rows summed": lambda x: (x * x.flip(2)).sum(2),
    "largest": lambda x: x.amax(1),
    "largest, with its index": lambda x: x.max(1).values,
}


class Every(nn.Module):
    """All functions of one image."""

    def __init__(self, functions: Functions) -> None:
        super().__init__()
        self.functions = list(functions.values())

    def forward(self, x: Tensor) -> list[Tensor]:
        return [function(x) for function in self.functions]


def grid() -> Tensor:
    """Values near zero and far from it."""
    values = torch.linspace(-12, 12, 2 * 3 * 30 * 41)
    values[::1000] *= 1e4
    return values.reshape(2, 3, 30, 41)


def traced(functions: Functions) -> dict[str, tuple[Value, Tensor]]:
    model, images = Every(functions), grid()
    found = labeltrace.trace(model, images).outputs
    return {
        name: (value, tensor)
        for name, value, tensor in zip(functions, found, model(images), strict=True)
        if value is not None
    }


def test_least_values() -> None:
    found = traced(KNOWN)
    assert found.keys() == KNOWN.keys()
    off = {
        name: (value.facts.lower_bound, tensor.min().item())
        for name, (value, tensor) in found.items()
    }
    assert {name: pair for name, pair in off.items() if pair[0] > pair[1] + 1e-5} == {}
    assert {name: pair for name, pair in off.items() if pair[0] < pair[1] - 2e-3} == {}


def test_numbers_below_all_values() -> None:
    found = traced(BELOW)
    assert all(value.facts.lower_bound <= tensor.min() for value, tensor in found.values())
    assert [value.facts.lower_bound for value, _ in found.values()] == [-1, 0]


def test_least_values_that_nobody_knows() -> None:
    found = traced(UNKNOWN)
    assert {
        name: value.facts.lower_bound
        for name, (value, _) in found.items()
        if value.facts.lower_bound != -inf
    } == {}


@pytest.mark.parametrize("functions", [GATES, NO_GATES])
def test_gates(functions: Functions) -> None:
    found = traced(functions)
    bounded = {name for name, (value, _) in found.items() if value.facts.is_gate}
    assert bounded == (set(GATES) if functions is GATES else set())
    if functions is GATES:
        assert all(bool((tensor.abs() <= 1).all()) for _, tensor in found.values())
