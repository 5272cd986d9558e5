"""Weights over positions without attention: linear layers, and weights that tokens predict."""

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
from tests.random_architectures.registry import stage
from tests.random_architectures.state import Promise, Stage, State


@stage(on="tokens", promise=Promise.EQUAL)
def token_mixing(draw: DrawFn, state: State) -> Stage:
    """MLP-Mixer's and ResMLP's linear layers over positions."""
    tokens = prod(state.space)
    hidden = nn.Linear(tokens, 5)
    out = pick(draw, tokens, 4, 7)
    back = nn.Linear(5, out)
    code = pick(
        draw,
        lambda self, x: self.back(F.gelu(self.hidden(x.mT))).mT,
        lambda self, x: self.single(x.transpose(1, 2)).transpose(1, 2),
        lambda self, x: torch.einsum("on,bnc->boc", self.single.weight, x),
        lambda self, x: self.single.weight @ x,
        lambda self, x: F.conv1d(x, self.single.weight[:, :, None]),
    )
    module = Code(code, hidden=hidden, back=back, single=nn.Linear(tokens, out))
    return Stage(module, replace(state, space=(out,)))


def fixed_token_mixing(draw: DrawFn, state: State) -> Stage:
    """A linear layer over as many positions as before, for windows and axes of a map."""
    tokens = state.space[0]
    layer = nn.Linear(tokens, tokens)
    code = pick(
        draw,
        lambda self, x: self.layer(x.mT).mT,
        lambda self, x: torch.einsum("bnc,on->boc", x, self.layer.weight),
    )
    return Stage(Code(code, layer=layer), state)


@stage(on="map", promise=Promise.EQUAL)
def axis_mixing(draw: DrawFn, state: State) -> Stage:
    """A linear layer over the rows or the columns of a map."""
    rows, columns = state.space
    if draw(st.booleans()):
        return Stage(nn.Linear(columns, columns), state)
    return Stage(Code(lambda self, x: self.layer(x.mT).mT, layer=nn.Linear(rows, rows)), state)


@stage(on="tokens", promise=Promise.EQUAL)
def predicted_mixing(draw: DrawFn, state: State) -> Stage:
    """Weights that each token predicts by itself, times values, summed over all (Synthesizer)."""
    softmax = pick(draw, False, True)

    def weights(self: Any, x: Tensor) -> Tensor:
        predicted = self.predict(x)
        return predicted.softmax(-1) if softmax else predicted

    code = pick(
        draw,
        lambda self, x: (weights(self, x)[..., None] * x[:, None]).sum(2),
        lambda self, x: (x[:, None] * weights(self, x)[..., None] * 0.3).mean(2),
        lambda self, x: weights(self, x) @ x,
    )
    module = Code(code, predict=nn.Linear(state.channels, prod(state.space)))
    return Stage(module, state, Promise.SOUND if state.blended else Promise.EQUAL)


@stage(on="tokens", promise=Promise.SOUND)
def spatial_gate(draw: DrawFn, state: State) -> Stage:
    """One half of the channels is mixed over tokens and multiplies the other (gMLP)."""
    tokens = prod(state.space)

    def gate(self: Any, x: Tensor) -> Tensor:
        values, gates = self.wide(x).chunk(2, -1)
        return values * self.mix(gates.mT).mT

    def gate_of_activations(self: Any, x: Tensor) -> Tensor:
        values, gates = self.wide(x).split(3, -1)
        return F.silu(values) * self.mix(gates.mT).mT

    def gate_of_channels(self: Any, x: Tensor) -> Tensor:
        return F.glu(self.wide(x), -1)

    module = Code(
        pick(draw, gate, gate_of_activations, gate_of_channels),
        wide=nn.Linear(state.channels, 6),
        mix=nn.Linear(tokens, tokens),
    )
    return Stage(module, State(3, state.space))
