"""The stages that architectures are drawn from: decorators that register the functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hypothesis.strategies import DrawFn

from tests.random_architectures.state import Promise, Stage, State, named

Activation = Literal["map", "tokens", "any"]
Branch = Callable[[State], Stage]
"""Draws a short chain of stages that leaves channels and sizes as they are."""

DrawStage = Callable[[DrawFn, State], Stage]
DrawBranchingStage = Callable[[DrawFn, State, Branch], Stage]


@dataclass(frozen=True, slots=True)
class RegisteredStage:
    """A function that draws stages.

    on: the activations that it draws stages for.
    min_channels: the number of channels that it needs.
    branches: whether its stages hold branches of other stages.
    """

    name: str
    draw: DrawBranchingStage
    on: Activation
    min_channels: int
    branches: bool

    def fits(self, state: State) -> bool:
        kind = "map" if state.is_map else "tokens"
        return self.on in (kind, "any") and state.channels >= self.min_channels


_REGISTERED: dict[str, RegisteredStage] = {}


def stage(
    *, on: Activation, promise: Promise, min_channels: int = 1
) -> Callable[[DrawStage], DrawStage]:
    """Register a function `(draw, state) -> Stage`.

    Args:
        on: the activations that it draws stages for.
        promise: the most that its stages promise. A stage may say less, for what was drawn.
        min_channels: the number of channels that it needs.
    """

    def register(function: DrawStage) -> DrawStage:
        name = function.__name__

        @functools.wraps(function)
        def draw_stage(draw: DrawFn, state: State) -> Stage:
            return named(function(draw, state), name, promise)

        def without_branch(draw: DrawFn, state: State, branch: Branch) -> Stage:
            return draw_stage(draw, state)

        _add(RegisteredStage(name, without_branch, on, min_channels, branches=False))
        return draw_stage

    return register


def branching_stage(
    *, on: Activation, promise: Promise, min_channels: int = 1
) -> Callable[[DrawBranchingStage], DrawBranchingStage]:
    """Register a function `(draw, state, branch) -> Stage`, whose stages hold other stages.

    The arguments are those of `stage`.
    """

    def register(function: DrawBranchingStage) -> DrawBranchingStage:
        name = function.__name__

        @functools.wraps(function)
        def draw_stage(draw: DrawFn, state: State, branch: Branch) -> Stage:
            return named(function(draw, state, branch), name, promise)

        _add(RegisteredStage(name, draw_stage, on, min_channels, branches=True))
        return draw_stage

    return register


def _add(registered: RegisteredStage) -> None:
    assert registered.name not in _REGISTERED, f"two stages are called {registered.name}"
    _REGISTERED[registered.name] = registered


def registered_stages() -> tuple[RegisteredStage, ...]:
    """Every stage, by name: the order in which files were imported does not matter."""
    return tuple(_REGISTERED[name] for name in sorted(_REGISTERED))
