"""Recurrent layers over tokens."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor, nn

from tests.helpers.code_module import Code
from tests.random_architectures.drawing import pick
from tests.random_architectures.registry import stage
from tests.random_architectures.state import Promise, Stage, State


@stage(on="tokens", promise=Promise.EQUAL)
def recurrent(draw: DrawFn, state: State) -> Stage:
    """In one direction or both, layer after layer; every output, or the last hidden state."""
    kind = pick(draw, nn.LSTM, nn.GRU, nn.RNN)
    bidirectional, batch_first = draw(st.booleans()), draw(st.booleans())
    layers = pick(draw, 1, 2)
    layer = kind(state.channels, 3, layers, batch_first=batch_first, bidirectional=bidirectional)

    def every_output(self: Any, x: Tensor) -> Tensor:
        if batch_first:
            return self.layer(x)[0]
        return self.layer(x.transpose(0, 1))[0].transpose(0, 1)

    def last_hidden_state(self: Any, x: Tensor) -> Tensor:
        _, hidden = self.layer(x if batch_first else x.transpose(0, 1))
        if kind is nn.LSTM:
            hidden, _ = hidden  # the other one is the cell state
        return hidden[-1][:, None]

    if draw(st.booleans()):
        after = State(6 if bidirectional else 3, state.space)
        return Stage(Code(every_output, layer=layer), after)
    return Stage(Code(last_hidden_state, layer=layer), State(3, (1,)))
