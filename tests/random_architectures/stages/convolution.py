"""Convolutions, with kernels that are learned or predicted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor, nn

from tests.helpers.code_module import Code
from tests.random_architectures.drawing import divisors, pick
from tests.random_architectures.modules import channels_first
from tests.random_architectures.registry import stage
from tests.random_architectures.state import Promise, Stage, State


@stage(on="any", promise=Promise.EQUAL)
def convolution(draw: DrawFn, state: State) -> Stage:
    kernel = [pick(draw, 1, 2, 3, 5) for _ in state.space]
    dilation = [pick(draw, 1, 1, 2) for _ in state.space]
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    # A window that lies in the padding alone sees no position of the image.
    padding = [
        draw(st.integers(0, (k - 1) * d if k > 1 else 0))
        for k, d in zip(kernel, dilation, strict=True)
    ]
    padding = [p if p < size else 0 for p, size in zip(padding, state.space, strict=True)]
    stride = [pick(draw, 1, 1, 2, 3) for _ in state.space]
    for dim, size in enumerate(state.space):
        if size + 2 * padding[dim] < extent[dim]:
            kernel[dim] = dilation[dim] = stride[dim] = extent[dim] = 1
            padding[dim] = 0
    groups = pick(draw, 1, *divisors(state.channels))
    out = _output_channels(draw, groups)
    mode = "zeros"
    if all(p < size for p, size in zip(padding, state.space, strict=True)):
        mode = pick(draw, "zeros", "zeros", "reflect", "replicate", "circular")
    kind = nn.Conv2d if state.is_map else nn.Conv1d
    layer = kind(state.channels, out, kernel, stride, padding, dilation, groups, padding_mode=mode)
    space = tuple(
        (size + 2 * p - e) // s + 1
        for size, p, e, s in zip(state.space, padding, extent, stride, strict=True)
    )
    after = State(out, space, blended=state.blended and groups > 1)
    return Stage(channels_first(layer, state), after)


def _output_channels(draw: DrawFn, groups: int) -> int:
    """At least two: nothing distinguishes an axis of one channel from an axis of positions."""
    return max(2, groups * pick(draw, 1, 2))


@stage(on="any", promise=Promise.EQUAL)
def same_convolution(draw: DrawFn, state: State) -> Stage:
    """A convolution that leaves channels and sizes as they are."""
    kernel = [pick(draw, 1, 3, 4) for _ in state.space]
    kind = nn.Conv2d if state.is_map else nn.Conv1d
    groups = pick(draw, 1, state.channels)
    layer = kind(state.channels, state.channels, kernel, padding="same", groups=groups)
    after = replace(state, blended=state.blended and groups > 1)
    return Stage(channels_first(layer, state), after)


@stage(on="any", promise=Promise.EQUAL)
def patch_embedding(draw: DrawFn, state: State) -> Stage:
    """Kernel and stride are the same."""
    kernel = [pick(draw, *divisors(size, most=3)) for size in state.space]
    kind = nn.Conv2d if state.is_map else nn.Conv1d
    layer = kind(state.channels, 6, kernel, kernel)
    space = tuple(size // k for size, k in zip(state.space, kernel, strict=True))
    return Stage(channels_first(layer, state), State(6, space))


@stage(on="any", promise=Promise.EQUAL)
def transposed_convolution(draw: DrawFn, state: State) -> Stage:
    kernel = [pick(draw, 1, 2, 3) for _ in state.space]
    stride = [pick(draw, 1, 2, 3) for _ in state.space]
    dilation = [pick(draw, 1, 1, 2) for _ in state.space]
    padding = [draw(st.integers(0, k - 1)) for k in kernel]
    extra = [pick(draw, 0, 0, s - 1) for s in stride]
    groups = pick(draw, *divisors(state.channels))
    out = _output_channels(draw, groups)
    space = tuple(
        (size - 1) * s - 2 * p + d * (k - 1) + e + 1
        for size, s, p, d, k, e in zip(
            state.space, stride, padding, dilation, kernel, extra, strict=True
        )
    )
    if min(space) < 1:
        return same_convolution(draw, state)
    kind = nn.ConvTranspose2d if state.is_map else nn.ConvTranspose1d
    layer = kind(
        state.channels, out, kernel, stride, padding, extra, groups=groups, dilation=dilation
    )
    # A position that no input reaches takes the mean of all, although it holds the bias alone.
    settings = zip(kernel, stride, dilation, extra, strict=True)
    reached = all(k >= s and d == 1 and e == 0 for k, s, d, e in settings)
    after = State(out, space, blended=state.blended and groups > 1)
    return Stage(channels_first(layer, state), after, Promise.EQUAL if reached else Promise.NONE)


@stage(on="map", promise=Promise.EQUAL, min_channels=2)
def unshuffled_convolution(draw: DrawFn, state: State) -> Stage:
    """Blocks of positions go into the channels, and a convolution slides over the blocks."""
    height, width = (pick(draw, *divisors(size, most=3)) for size in state.space)
    rows, columns = state.space[0] // height, state.space[1] // width
    order = pick(draw, (0, 1, 3, 5, 2, 4), (0, 3, 5, 1, 2, 4))
    layer = nn.Conv2d(state.channels * height * width, 4, (3, 1), padding=(1, 0))

    def forward(self: Any, x: Tensor) -> Tensor:
        blocks = x.unflatten(3, (columns, width)).unflatten(2, (rows, height))
        return self.layer(blocks.permute(order).flatten(1, 3))

    return Stage(Code(forward, layer=layer), State(4, (rows, columns)))


@stage(on="map", promise=Promise.EQUAL)
def involution(draw: DrawFn, state: State) -> Stage:
    """A kernel for each position, predicted there (Involution)."""
    groups = pick(draw, *divisors(state.channels))

    def forward(self: Any, x: Tensor) -> Tensor:
        batch, _, *space = x.shape
        windows = F.unfold(x, 3, padding=1).view(batch, groups, -1, 9, *space)
        kernels = self.predict(x).view(batch, groups, 1, 9, *space)
        return (windows * kernels).sum(3).view_as(x)

    module = Code(forward, predict=nn.Conv2d(state.channels, 9 * groups, 1))
    promise = Promise.SOUND if state.blended else Promise.EQUAL
    return Stage(module, state, promise, prior=True)
