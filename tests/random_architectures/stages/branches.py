"""Stages made of stages: sums, products and concatenations of branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor, nn

from tests.helpers.code_module import Code
from tests.random_architectures.drawing import pick
from tests.random_architectures.modules import Branches
from tests.random_architectures.registry import Branch, branching_stage
from tests.random_architectures.state import Promise, Stage, State, composed

Combine = Callable[[Tensor, list[Tensor]], Tensor]
"""Of the input `x` and the outputs `y` of the branches."""


def _combined(
    combine: Combine, after: State, branches: list[Stage], promise: Promise = Promise.EQUAL
) -> Stage:
    module = Branches([branch.module for branch in branches], combine)
    return composed(module, after, branches, promise)


def _any_blended(state: State, branches: list[Stage]) -> bool:
    return state.blended or any(branch.state.blended for branch in branches)


@branching_stage(on="any", promise=Promise.EQUAL)
def residual(draw: DrawFn, state: State, branch: Branch) -> Stage:
    """Trees of sums."""
    count = draw(st.integers(1, 3))
    branches = [branch(state) for _ in range(count)]
    last_dim = -1 if state.is_map else 1  # of the positions
    # No two terms of a model cancel exactly: coefficients in these files have no common sums.
    combinations: dict[int, tuple[Combine, ...]] = {
        1: (
            lambda x, y: x + y[0],
            lambda x, y: y[0] - 0.733 * x,
            lambda x, y: x.add(y[0], alpha=0.314),
            lambda x, y: torch.lerp(x, y[0], 0.368),
        ),
        2: (
            lambda x, y: x + (y[0] + y[1]),
            lambda x, y: (x + y[0]) + y[1],
            lambda x, y: y[0] + y[1],
            lambda x, y: sum(y) + x.mean(last_dim, True),
        ),
        3: (
            lambda x, y: (x + y[0]) + (y[1] + y[2]),
            lambda x, y: torch.stack(y).sum(0),
            lambda x, y: y[0] + y[1] + y[2],
        ),
    }
    after = replace(state, blended=_any_blended(state, branches))
    return _combined(pick(draw, *combinations[count]), after, branches)


@branching_stage(on="any", promise=Promise.SOUND)
def gated(draw: DrawFn, state: State, branch: Branch) -> Stage:
    """Products of streams."""
    gate = branch(state)
    dims = state.position_dims
    combine: Combine = pick(
        draw,
        lambda x, y: x * y[0].sigmoid(),
        lambda x, y: x * y[0].mean(dims, keepdim=True).sigmoid(),
        lambda x, y: torch.tanh(x + 0.3) * y[0],
        lambda x, y: (x + 0.3) * y[0],
    )
    return _combined(combine, replace(state, blended=True), [gate])


@branching_stage(on="any", promise=Promise.EQUAL)
def concatenated(draw: DrawFn, state: State, branch: Branch) -> Stage:
    """Streams side by side in the channels, all of the last one or its first channel."""
    branches = [branch(state) for _ in range(draw(st.integers(1, 2)))]
    dim = state.channel_dim

    def all_channels(x: Tensor, y: list[Tensor]) -> Tensor:
        return torch.cat([x, *y], dim)

    def one_channel_of_last(x: Tensor, y: list[Tensor]) -> Tensor:
        return torch.cat([x, *y[:-1], y[-1].narrow(dim, 0, 1)], dim)

    narrow = draw(st.booleans())
    others = len(branches) if narrow else len(branches) + 1
    after = replace(state, channels=state.channels * others + narrow, blended=True)
    # One channel of a blended branch may hold less than its label says.
    lost = narrow and branches[-1].state.blended
    return _combined(
        one_channel_of_last if narrow else all_channels,
        after,
        branches,
        Promise.NONE if lost else Promise.EQUAL,
    )


@branching_stage(on="tokens", promise=Promise.EQUAL)
def joined_tokens(draw: DrawFn, state: State, branch: Branch) -> Stage:
    """Two streams, one after the other along the tokens."""
    other = branch(state)

    def every_token(x: Tensor, y: list[Tensor]) -> Tensor:
        return torch.cat([x, y[0]], 1)

    def mean_token(x: Tensor, y: list[Tensor]) -> Tensor:
        return torch.cat([x.mean(1, True), y[0]], 1)

    combine = pick(draw, every_token, mean_token)
    tokens = state.space[0] + (1 if combine is mean_token else state.space[0])
    after = replace(state, space=(tokens,), blended=_any_blended(state, [other]))
    return _combined(combine, after, [other])


@branching_stage(on="any", promise=Promise.EQUAL, min_channels=4)
def split(draw: DrawFn, state: State, branch: Branch) -> Stage:
    """Channels are split, one half goes on, and both are joined again (ShuffleNet, CSP)."""
    half, dim = state.channels // 2, state.channel_dim
    rest = state.channels - half
    inner = branch(replace(state, channels=half))

    def chunk(self: nn.Module, x: Tensor) -> Tensor:
        return x.chunk(2, dim)[0]

    def narrow(self: nn.Module, x: Tensor) -> Tensor:
        return x.narrow(dim, 0, half)

    def joined(x: Tensor, y: list[Tensor]) -> Tensor:
        return torch.cat([y[0], x.narrow(dim, half, rest)], dim)

    first_half = Code(chunk if half == rest else narrow)
    module = Branches([nn.Sequential(first_half, inner.module)], joined)
    promise = Promise.NONE if state.blended else Promise.EQUAL
    return composed(module, replace(state, blended=True), [inner], promise)
