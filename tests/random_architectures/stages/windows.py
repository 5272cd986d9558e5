"""Windows of a map, and stages inside them."""

from __future__ import annotations

from collections.abc import Sequence
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
from tests.random_architectures.modules import Windows
from tests.random_architectures.registry import stage
from tests.random_architectures.stages.attention import self_attention
from tests.random_architectures.stages.convolution import same_convolution
from tests.random_architectures.stages.pointwise import mlp
from tests.random_architectures.stages.token_mixing import fixed_token_mixing
from tests.random_architectures.state import Promise, Stage, State, composed


@stage(on="map", promise=Promise.EQUAL)
def windows(draw: DrawFn, state: State) -> Stage:
    """A stage over the tokens of each window, which may be shifted (Swin)."""
    height, width = (pick(draw, *divisors(size)) for size in state.space)
    shift = (draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1)))
    draw_inner = pick(draw, self_attention, same_convolution, mlp, fixed_token_mixing)
    inner = draw_inner(draw, replace(state, space=(height * width,)))
    module = Windows(inner.module, (height, width), shift)
    return composed(module, replace(inner.state, space=state.space), [inner])


@stage(on="map", promise=Promise.EQUAL)
def axial(draw: DrawFn, state: State) -> Stage:
    """A stage over the tokens of each row, or of each column: the others go into the batch."""
    rows, columns = state.space
    along_rows = draw(st.booleans())
    tokens, others = (rows, columns) if along_rows else (columns, rows)
    order = (0, 3, 2, 1) if along_rows else (0, 2, 3, 1)
    back = (0, 3, 2, 1) if along_rows else (0, 3, 1, 2)
    draw_inner = pick(draw, self_attention, same_convolution, fixed_token_mixing)
    inner = draw_inner(draw, replace(state, space=(tokens,)))

    def forward(self: Any, x: Tensor) -> Tensor:
        lines = self.inner(x.permute(order).flatten(0, 1))
        return lines.unflatten(0, (-1, others)).permute(back)

    module = Code(forward, inner=inner.module)
    return composed(module, replace(inner.state, space=state.space), [inner])


@stage(on="any", promise=Promise.EQUAL, min_channels=2)
def merging(draw: DrawFn, state: State) -> Stage:
    """Neighboring positions are concatenated along the channels and reduced (patch merging)."""
    return _merged_map(draw, state) if state.is_map else _merged_tokens(draw, state)


def _merged_tokens(draw: DrawFn, state: State) -> Stage:
    step = pick(draw, *divisors(state.space[0], most=4))
    tokens, width = state.space[0] // step, step * state.channels

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.layer(x.reshape(x.shape[0], tokens, width))

    return Stage(Code(forward, layer=nn.Linear(width, 5)), State(5, (tokens,)))


def _merged_map(draw: DrawFn, state: State) -> Stage:
    channels = state.channels
    height, width = (pick(draw, *divisors(size, most=3)) for size in state.space)
    rows, columns = state.space[0] // height, state.space[1] // width
    layer = nn.Linear(height * width * channels, 5)
    plain = draw(st.booleans())
    norm = nn.Identity() if plain else nn.LayerNorm(height * width * channels)

    def viewed(self: Any, x: Tensor) -> Tensor:
        blocks = x.view(x.shape[0], channels, rows, height, columns, width)
        merged = blocks.permute(0, 2, 4, 3, 5, 1).flatten(3)
        return self.layer(self.norm(merged)).permute(0, 3, 1, 2)

    def sliced(self: Any, x: Tensor) -> Tensor:
        slices = [
            x.permute(0, 2, 3, 1)[:, row::height, column::width]
            for column in range(width)
            for row in range(height)
        ]
        return self.layer(self.norm(torch.cat(slices, -1))).permute(0, 3, 1, 2)

    module = Code(pick(draw, viewed, sliced), layer=layer, norm=norm)
    return Stage(module, State(5, (rows, columns)))


@stage(on="map", promise=Promise.EQUAL, min_channels=2)
def windows_to_tokens(draw: DrawFn, state: State) -> Stage:
    """Patches that may overlap, each a token (T2T-ViT, TNT)."""
    kernel = [draw(st.integers(1, min(3, size))) for size in state.space]
    stride = [pick(draw, 1, 2, 3) for _ in state.space]
    padding = [draw(st.integers(0, k - 1)) for k in kernel]

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.layer(F.unfold(x, kernel, 1, padding, stride).mT)

    module = Code(forward, layer=nn.Linear(state.channels * prod(kernel), 5))
    tokens = prod(_window_counts(state.space, kernel, stride, padding))
    return Stage(module, State(5, (tokens,)), prior=any(padding))


@stage(on="map", promise=Promise.EQUAL)
def mixed_windows(draw: DrawFn, state: State) -> Stage:
    """Overlapping windows, mixed inside and summed at their places (VOLO's outlooker)."""
    space, channels = state.space, state.channels
    kernel = [draw(st.integers(1, min(3, size))) for size in space]
    padding = [draw(st.integers(0, (k - 1) // 2)) for k in kernel]
    size, count = prod(kernel), prod(_window_counts(space, kernel, [1, 1], padding))

    def forward(self: Any, x: Tensor) -> Tensor:
        windows = F.unfold(x, kernel, padding=padding).unflatten(1, (channels, size))
        mixed = torch.einsum("ot,bctw->bcow", self.mix, windows)
        return F.fold(mixed.reshape(-1, channels * size, count), space, kernel, padding=padding)

    module = Code(forward, mix=nn.Parameter(torch.randn(size, size)))
    return Stage(module, state, prior=any(padding))


@stage(on="map", promise=Promise.EQUAL)
def haloed_windows(draw: DrawFn, state: State) -> Stage:
    """Windows along rows and columns, as axes of their own; each becomes one position (HaloNet)."""
    kernel = [draw(st.integers(1, min(3, size))) for size in state.space]
    stride = [pick(draw, 1, 2) for _ in state.space]

    def cut(x: Tensor) -> Tensor:
        """(B, C, rows, columns, window rows, window columns)."""
        return x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])

    code = pick(
        draw,
        lambda self, x: cut(x).sum((4, 5)),
        lambda self, x: self.layer(cut(x).flatten(4))[..., 0],
    )
    module = Code(code, layer=nn.Linear(prod(kernel), 2))
    space = _window_counts(state.space, kernel, stride, [0, 0])
    return Stage(module, replace(state, space=tuple(space)))


def _window_counts(
    space: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> list[int]:
    """How many windows fit along each axis."""
    axes = zip(space, kernel, stride, padding, strict=True)
    return [(size + 2 * p - k) // s + 1 for size, k, s, p in axes]
