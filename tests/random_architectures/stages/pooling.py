"""Positions pooled into fewer, and means that go back to every position."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor, nn

from tests.helpers.code_module import Code
from tests.random_architectures.drawing import pick
from tests.random_architectures.modules import channels_first
from tests.random_architectures.registry import stage
from tests.random_architectures.state import Promise, Stage, State


@stage(on="any", promise=Promise.EQUAL)
def pooling(draw: DrawFn, state: State) -> Stage:
    kernel = [draw(st.integers(1, min(3, size))) for size in state.space]
    stride = [pick(draw, 1, 2, 3) for _ in state.space]
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    ceil = draw(st.booleans())
    average = pick(draw, True, False) if state.is_map else True
    layer: nn.Module
    if average:
        kind = nn.AvgPool2d if state.is_map else nn.AvgPool1d
        layer = kind(kernel, stride, padding, ceil, draw(st.booleans()))
    else:
        dilation = [
            pick(draw, 1, 2) if size >= 2 * k else 1
            for size, k in zip(state.space, kernel, strict=True)
        ]
        layer = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)
    with torch.no_grad():
        space = tuple(layer(torch.zeros(1, 1, *state.space)).shape[2:])
    promise = Promise.EQUAL if average else Promise.NONE
    return Stage(channels_first(layer, state), replace(state, space=space), promise)


@stage(on="any", promise=Promise.EQUAL)
def adaptive_pooling(draw: DrawFn, state: State) -> Stage:
    space = tuple(draw(st.integers(1, size)) for size in state.space)
    kind = nn.AdaptiveAvgPool2d if state.is_map else nn.AdaptiveAvgPool1d
    return Stage(channels_first(kind(space), state), replace(state, space=space))


@stage(on="any", promise=Promise.EQUAL)
def global_context(draw: DrawFn, state: State) -> Stage:
    """A mean over all positions goes back to every one of them."""
    dims, channel_dim = state.position_dims, state.channel_dim
    count = prod(state.space)  # keeps values small: where an activation is flat, nothing is read

    def mean_added(self: Any, x: Tensor) -> Tensor:
        return x + x.mean(dims, keepdim=True)

    def mean_alone(self: Any, x: Tensor) -> Tensor:
        return (x / count).sum(dims, keepdim=True).expand_as(x)

    def mean_subtracted(self: Any, x: Tensor) -> Tensor:
        return x - 0.618 * x.mean(dims, keepdim=True)

    def mean_concatenated(self: Any, x: Tensor) -> Tensor:
        return torch.cat([x, x.mean(dims, keepdim=True).expand_as(x)], channel_dim)

    def scaled_by_norm(self: Any, x: Tensor) -> Tensor:
        return x * ((x / count).norm(dim=dims, keepdim=True) + 1)

    code = pick(draw, mean_added, mean_alone, mean_subtracted, mean_concatenated, scaled_by_norm)
    if code is mean_concatenated:
        return Stage(Code(code), replace(state, channels=2 * state.channels, blended=True))
    return Stage(Code(code), state, Promise.SOUND if code is scaled_by_norm else Promise.EQUAL)


@stage(on="any", promise=Promise.SOUND)
def squeeze_excite(draw: DrawFn, state: State) -> Stage:
    dims = state.position_dims
    squeeze: nn.Module
    excite: nn.Module
    if state.is_map:
        squeeze, excite = nn.Conv2d(state.channels, 2, 1), nn.Conv2d(2, state.channels, 1)
    else:
        squeeze, excite = nn.Linear(state.channels, 2), nn.Linear(2, state.channels)
    gate = pick(draw, torch.sigmoid, F.hardsigmoid, torch.tanh, F.gelu)

    def forward(self: Any, x: Tensor) -> Tensor:
        return x * gate(self.excite(F.silu(self.squeeze(x.mean(dims, keepdim=True)))))

    return Stage(Code(forward, squeeze=squeeze, excite=excite), state)
