"""Modules that stages are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.helpers.code_module import Code, source_of
from tests.random_architectures.state import State


def channels_first(layer: nn.Module, state: State) -> nn.Module:
    """A layer over (B, C, *positions), for this activation: tokens are transposed around it."""
    return layer if state.is_map else Code(lambda self, x: self.layer(x.mT).mT, layer=layer)


def randomized(layer: nn.Module) -> nn.Module:
    """The layer with parameters that are no longer ones and zeros."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.rand_like(parameter))
    return layer


class Branches(nn.Module):
    """Several branches of one input, and code over the input and the list of their outputs."""

    def __init__(
        self, branches: Sequence[nn.Module], combine: Callable[[Tensor, list[Tensor]], Tensor]
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(x, [branch(x) for branch in self.branches])

    def extra_repr(self) -> str:
        return source_of(self.combine)


class Windows(nn.Module):
    """A stage over tokens, inside windows of a map that is rolled before and back after."""

    def __init__(self, inner: nn.Module, window: tuple[int, int], shift: tuple[int, int]) -> None:
        super().__init__()
        self.inner = inner
        self.window = window
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, rows, columns = x.shape
        height, width = self.window
        x = x.permute(0, 2, 3, 1)
        if any(self.shift):
            x = torch.roll(x, (-self.shift[0], -self.shift[1]), (1, 2))
        x = x.view(batch, rows // height, height, columns // width, width, channels)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height * width, channels)
        x = self.inner(x)
        x = x.view(-1, rows // height, columns // width, height, width, x.shape[-1])
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)
        if any(self.shift):
            x = torch.roll(x, self.shift, (1, 2))
        return x.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"window={self.window}, shift={self.shift}"


Mask = Literal["none", "additive", "boolean", "causal"]


class Attention(nn.Module):
    """Self-attention over (B, N, C) in one of many spellings."""

    def __init__(
        self, channels: int, heads: int, tokens: int, spelling: Spelling, mask: Mask
    ) -> None:
        super().__init__()
        self.heads = heads
        self.spelling = spelling
        self.mask = mask
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels // heads)
        self.drop = nn.Dropout(0.3)
        additive = torch.linspace(-1, 1, tokens * tokens).reshape(tokens, tokens)
        self.register_buffer("additive", additive)
        allowed = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        self.register_buffer("allowed", allowed)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.norm(q), self.norm(k)
        mixed = self.spelling(self, q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, channels))

    def weights(self, scores: Tensor) -> Tensor:
        """(B, heads, queries, keys), masked, normalized over keys."""
        if self.mask == "additive":
            scores = scores + self.additive
        if self.mask in ("causal", "boolean"):
            scores = scores.masked_fill(~self.allowed, -math.inf)
        return self.drop(scores.softmax(-1))

    def extra_repr(self) -> str:
        return f"heads={self.heads}, {self.spelling.__name__}, mask={self.mask}"


Spelling = Callable[[Attention, Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values (B, heads, N, C) to values mixed over keys, of the same shape."""


def fused(self: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = {"additive": self.additive, "boolean": self.allowed}.get(self.mask)
    rate = self.drop.p if self.training else 0.0
    causal = self.mask == "causal"
    return F.scaled_dot_product_attention(q, k, v, mask, rate, causal, scale=0.5)


def written_out(self: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return self.weights(q @ k.transpose(-2, -1) * 0.5) @ v


def einsums(self: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = self.weights(torch.einsum("bhqd,bhkd->bhqk", q * 0.5, k))
    return torch.einsum("bhqk,bhkd->bhqd", weights, v)


def sum_of_products(self: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = self.weights(q @ k.transpose(-2, -1) * 0.5)
    return (weights[..., None] * v[:, :, None]).sum(3)


def heads_in_batch(self: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))
    weights = self.weights(torch.bmm(q, k.transpose(1, 2)))
    return torch.bmm(weights, v).unflatten(0, (-1, self.heads))


def fused_heads_in_batch(self: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    shape = q.shape
    folded = (part.reshape(-1, *shape[2:]) for part in (q, k, v))
    return fused(self, *folded).view(shape)


def transposed(self: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scores have the keys first, and values are multiplied from the left."""
    weights = self.weights((k @ q.transpose(-2, -1)).transpose(-2, -1))
    return (v.transpose(-2, -1) @ weights.transpose(-2, -1)).transpose(-2, -1)


SPELLINGS: tuple[Spelling, ...] = (
    fused,
    written_out,
    einsums,
    heads_in_batch,
    fused_heads_in_batch,
    transposed,
)
