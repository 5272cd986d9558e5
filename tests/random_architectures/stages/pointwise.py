"""Stages that keep every position to itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis.strategies import DrawFn
from torch import Tensor, nn

from tests.helpers.code_module import Code
from tests.random_architectures.drawing import pick
from tests.random_architectures.registry import stage
from tests.random_architectures.state import Promise, Stage, State


@stage(on="any", promise=Promise.EQUAL)
def activation(draw: DrawFn, state: State) -> Stage:
    bounded = pick(draw, False, False, True)
    kinds: tuple[type[nn.Module], ...] = (nn.GELU, nn.SiLU, nn.Softplus)
    if bounded:
        kinds = (nn.Tanh, nn.Sigmoid, nn.Softsign)
    return Stage(pick(draw, *kinds)(), state)


@stage(on="any", promise=Promise.EQUAL)
def dropout(draw: DrawFn, state: State) -> Stage:
    return Stage(nn.Dropout(0.2), state)


@stage(on="any", promise=Promise.EQUAL)
def drop_path(draw: DrawFn, state: State) -> Stage:
    ones = [1] * (len(state.space) + 1)

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * x.new_empty(x.shape[0], *ones).bernoulli_(0.8)

    return Stage(Code(forward), state)


@stage(on="any", promise=Promise.EQUAL)
def scale(draw: DrawFn, state: State) -> Stage:
    shape = (state.channels, 1, 1) if state.is_map else (state.channels,)
    code = pick(
        draw,
        lambda self, x: x * self.gamma,
        lambda self, x: x + self.gamma,
        lambda self, x: self.gamma - x / 2,
        lambda self, x: -x,
    )
    return Stage(Code(code, gamma=nn.Parameter(1 + torch.rand(shape))), state)


@stage(on="any", promise=Promise.EQUAL)
def position_embedding(draw: DrawFn, state: State) -> Stage:
    shape = (1, state.channels, *state.space) if state.is_map else (1, *state.space, state.channels)
    embedding = nn.Parameter(torch.randn(shape))
    return Stage(Code(lambda self, x: x + self.embedding, embedding=embedding), state)


@stage(on="any", promise=Promise.EQUAL)
def mlp(draw: DrawFn, state: State) -> Stage:
    width = pick(draw, 3, 7)
    channels = pick(draw, state.channels, 5, 6)
    after = replace(state, channels=channels, blended=False)
    first, second = nn.Linear(state.channels, width), nn.Linear(width, channels)
    if not state.is_map:
        return Stage(nn.Sequential(first, nn.GELU(), second), after)

    def permuted(self: Any, x: Tensor) -> Tensor:
        return self.second(F.gelu(self.first(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)

    def with_moved_channels(self: Any, x: Tensor) -> Tensor:
        return self.second(F.gelu(self.first(x.movedim(1, -1)))).movedim(-1, 1)

    def over_tokens(self: Any, x: Tensor) -> Tensor:
        return self.second(F.gelu(self.first(x.flatten(2).mT))).mT.unflatten(2, x.shape[2:])

    def einsum(self: Any, x: Tensor) -> Tensor:
        return torch.einsum("bchw,oc->bohw", x, self.second.weight @ self.first.weight)

    code = pick(draw, permuted, with_moved_channels, over_tokens, einsum)
    return Stage(Code(code, first=first, second=second), after)
