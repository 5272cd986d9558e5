"""From maps to tokens and back, and a token of the model's own."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
from hypothesis.strategies import DrawFn
from torch import nn

from tests.helpers.code_module import Code
from tests.random_architectures.drawing import divisors, pick
from tests.random_architectures.registry import stage
from tests.random_architectures.state import Promise, Stage, State


@stage(on="map", promise=Promise.EQUAL)
def to_tokens(draw: DrawFn, state: State) -> Stage:
    code = pick(
        draw,
        lambda self, x: x.flatten(2).transpose(1, 2),
        lambda self, x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1]),
        lambda self, x: x.flatten(2).permute(0, 2, 1),
        lambda self, x: x.transpose(2, 3).flatten(2).mT,
    )
    return Stage(Code(code), replace(state, space=(prod(state.space),)))


@stage(on="tokens", promise=Promise.EQUAL)
def to_map(draw: DrawFn, state: State) -> Stage:
    (tokens,) = state.space
    rows = pick(draw, *divisors(tokens))
    columns = tokens // rows
    code = pick(
        draw,
        lambda self, x: x.transpose(1, 2).reshape(x.shape[0], -1, rows, columns),
        lambda self, x: x.view(-1, rows, columns, x.shape[-1]).permute(0, 3, 1, 2).contiguous(),
        lambda self, x: x.mT.unflatten(2, (rows, columns)),
        lambda self, x: x.unflatten(1, (columns, rows)).permute(0, 3, 2, 1),
    )
    return Stage(Code(code), replace(state, space=(rows, columns)))


@stage(on="tokens", promise=Promise.EQUAL)
def class_token(draw: DrawFn, state: State) -> Stage:
    token = nn.Parameter(torch.randn(1, 1, state.channels))
    code = pick(
        draw,
        lambda self, x: torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1),
        lambda self, x: torch.cat([x, self.token.expand(len(x), -1, -1)], dim=-2),
    )
    after = replace(state, space=(state.space[0] + 1,))
    return Stage(Code(code, token=token), after, prior=True)
