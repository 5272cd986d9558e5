"""Attention over tokens."""

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
from tests.random_architectures.drawing import divisors, pick
from tests.random_architectures.modules import SPELLINGS, Attention, Mask, Spelling, sum_of_products
from tests.random_architectures.registry import stage
from tests.random_architectures.state import Promise, Stage, State


@stage(on="tokens", promise=Promise.EQUAL)
def self_attention(draw: DrawFn, state: State) -> Stage:
    """PyTorch's layer, or one of many spellings."""
    heads = pick(draw, *divisors(state.channels))
    spellings: tuple[Spelling | None, ...] = (*SPELLINGS, None)  # None is PyTorch's layer
    if heads < state.channels:  # values of one feature might as well be a factor of the scores
        spellings = (*spellings, sum_of_products)
    spelling = pick(draw, *spellings)
    after = replace(state, blended=False)
    if spelling is None:
        return Stage(_multihead_attention(draw, state, heads), after)
    masks: tuple[Mask, ...] = ("none", "additive", "boolean", "causal")
    tokens = prod(state.space)
    return Stage(Attention(state.channels, heads, tokens, spelling, pick(draw, *masks)), after)


def _multihead_attention(draw: DrawFn, state: State, heads: int) -> nn.Module:
    layer = nn.MultiheadAttention(state.channels, heads, dropout=0.1, batch_first=True)
    need_weights = draw(st.booleans())

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.layer(x, x, x, need_weights=need_weights)[0]

    return Code(forward, layer=layer)


def every_token(x: Tensor) -> Tensor:
    return x


def every_second_token(x: Tensor) -> Tensor:
    return x[:, ::2]


def first_token(x: Tensor) -> Tensor:
    return x[:, :1]


def mean_token(x: Tensor) -> Tensor:
    return x.mean(1, True)


def two_mean_tokens(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool1d(x.mT, 2).mT


@stage(on="tokens", promise=Promise.EQUAL)
def pooled_attention(draw: DrawFn, state: State) -> Stage:
    """Queries are the tokens, or one token; keys and values may be fewer (PVT, class attention)."""
    channels, heads = state.channels, pick(draw, *divisors(state.channels))
    queries = pick(draw, every_token, first_token, mean_token)
    keys = pick(draw, every_token, two_mean_tokens, every_second_token)

    def forward(self: Any, x: Tensor) -> Tensor:
        q = self.q(queries(x)).unflatten(2, (heads, -1)).transpose(1, 2)
        kv = self.kv(keys(x)).unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
        k, v = kv.unbind(0)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    module = Code(
        forward,
        q=nn.Linear(channels, channels),
        kv=nn.Linear(channels, 2 * channels),
        out=nn.Linear(channels, channels),
    )
    after = replace(state, blended=False)
    if queries is not every_token:
        after = replace(after, space=(1,))
    # A query that is no key carries no label, although its content is read (contract, point 9).
    return Stage(module, after, Promise.SOUND if keys is every_second_token else Promise.EQUAL)


@stage(on="tokens", promise=Promise.EQUAL)
def talking_heads(draw: DrawFn, state: State) -> Stage:
    """Written-out attention with a linear layer over heads before and after the softmax."""
    channels = state.channels
    heads = pick(draw, *divisors(channels))

    def forward(self: Any, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.mT).permute(0, 2, 3, 1)  # (B, queries, keys, heads)
        weights = self.before(scores).permute(0, 3, 1, 2).softmax(-1)
        weights = self.after(weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return (weights @ v).transpose(1, 2).flatten(2)

    module = Code(
        forward,
        qkv=nn.Linear(channels, 3 * channels),
        before=nn.Linear(heads, heads),
        after=nn.Linear(heads, heads),
    )
    return Stage(module, replace(state, blended=False))


@stage(on="tokens", promise=Promise.EQUAL)
def cosine_attention(draw: DrawFn, state: State) -> Stage:
    """Normalized queries and keys, and biases looked up in a table (Swin v2)."""
    tokens = prod(state.space)

    def forward(self: Any, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        cosines = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        scores = cosines * self.scale.exp() + self.table[self.index]
        return scores.softmax(-1) @ v

    module = Code(
        forward,
        qkv=nn.Linear(state.channels, 3 * state.channels),
        scale=nn.Parameter(torch.zeros(1)),
        table=nn.Parameter(torch.randn(7)),
        index=torch.arange(tokens * tokens).reshape(tokens, tokens) % 7,
    )
    return Stage(module, replace(state, blended=False))


@stage(on="tokens", promise=Promise.EQUAL)
def relative_positions(draw: DrawFn, state: State) -> Stage:
    """Scores for each distance, shifted row by row until they have the places of keys."""
    (tokens,) = state.space
    distances = 2 * tokens - 1

    def by_distance(self: Any, q: Tensor) -> Tensor:
        scores = F.pad(q @ self.distances, (0, 1)).flatten(1)
        shifted = F.pad(scores, (0, tokens - 1)).reshape(-1, tokens + 1, distances)
        return shifted[:, :tokens, tokens - 1 :]

    def content_first(self: Any, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return (q @ k.mT * 0.5 + by_distance(self, q)).softmax(-1) @ v

    def distance_first(self: Any, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return (by_distance(self, q) + 2 * (q @ k.mT)).softmax(-1) @ v

    module = Code(
        pick(draw, content_first, distance_first),
        qkv=nn.Linear(state.channels, 3 * state.channels),
        distances=nn.Parameter(torch.randn(state.channels, distances)),
    )
    return Stage(module, replace(state, blended=False))
