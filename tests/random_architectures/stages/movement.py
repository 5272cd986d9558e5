"""Positions that move: rolled, reversed, cut, padded, repeated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor

from tests.helpers.code_module import Code, TensorCode
from tests.random_architectures.drawing import pick
from tests.random_architectures.registry import stage
from tests.random_architectures.state import Promise, Stage, State


@stage(on="any", promise=Promise.EQUAL)
def moved(draw: DrawFn, state: State) -> Stage:
    """Positions rolled, reversed, cut, selected, split and joined again."""
    axis = draw(st.integers(0, len(state.space) - 1))
    size = state.space[axis]
    options = _moves(draw, state.position_dims[axis], size)
    code, size_after = draw(st.sampled_from(options))
    space = list(state.space)
    space[axis] = size_after
    index = torch.tensor([draw(st.integers(0, size - 1)) for _ in range(3)])
    return Stage(Code(code, index=index), replace(state, space=tuple(space)))


def _moves(draw: DrawFn, dim: int, size: int) -> list[tuple[TensorCode, int]]:
    """What can be done along an axis of this size, and the size that it has after."""
    shift = draw(st.integers(-3, 3))
    moves: list[tuple[TensorCode, int]] = [
        (lambda self, x: torch.roll(x, shift, dim), size),
        (lambda self, x: x.flip(dim), size),
    ]
    if size > 1:
        moves += _cuts(dim, size, cut=draw(st.integers(1, size - 1)))
    if size % 2 == 0:
        moves += _halves(dim, size // 2)
    return moves


def _cuts(dim: int, size: int, cut: int) -> list[tuple[TensorCode, int]]:
    before = [slice(None)] * dim  # the axes before this one
    rest = size - cut

    def added_ends(self: Any, x: Tensor) -> Tensor:
        return x.narrow(dim, 0, cut) + x.narrow(dim, rest, cut)

    return [
        (lambda self, x: x.narrow(dim, cut, rest), rest),
        (lambda self, x: torch.cat(x.split([cut, rest], dim)[::-1], dim), size),
        (lambda self, x: torch.cat([x, x.narrow(dim, 0, cut)], dim), size + cut),
        (added_ends, cut),
        (lambda self, x: x[(*before, slice(None, None, 2))], (size + 1) // 2),
        (lambda self, x: x[(*before, slice(1, None))], size - 1),
        (lambda self, x: x.index_select(dim, self.index), 3),
    ]


def _halves(dim: int, half: int) -> list[tuple[TensorCode, int]]:
    def halves(x: Tensor) -> Tensor:
        return x.unflatten(dim, (2, half))

    return [
        (lambda self, x: halves(x).flip(dim).flatten(dim, dim + 1), 2 * half),
        (lambda self, x: halves(x).transpose(dim, dim + 1).flatten(dim, dim + 1), 2 * half),
        (lambda self, x: halves(x).mean(dim), half),
        (lambda self, x: halves(x).select(dim, 1), half),
    ]


@stage(on="any", promise=Promise.EQUAL)
def zero_padding(draw: DrawFn, state: State) -> Stage:
    """Zeros around the positions: they carry the prior."""
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    widths = (before, after) if state.is_map else (0, 0, before, after)
    space = (*state.space[:-1], state.space[-1] + before + after)
    return Stage(
        Code(lambda self, x: F.pad(x, widths)),
        replace(state, space=space),
        prior=bool(before or after),
    )


@stage(on="any", promise=Promise.EQUAL)
def copied_padding(draw: DrawFn, state: State) -> Stage:
    """Copies of positions around them."""
    width = draw(st.integers(0, min(2, min(state.space) - 1)))
    mode = pick(draw, "reflect", "replicate", "circular")
    widths = (width, 0) * len(state.space)
    space = tuple(size + width for size in state.space)

    def over_map(self: Any, x: Tensor) -> Tensor:
        return F.pad(x, widths, mode=mode)

    def over_tokens(self: Any, x: Tensor) -> Tensor:
        return F.pad(x.mT, widths, mode=mode).mT

    code = over_map if state.is_map else over_tokens
    return Stage(Code(code), replace(state, space=space))


@stage(on="any", promise=Promise.EQUAL)
def repetition(draw: DrawFn, state: State) -> Stage:
    """Positions or channels more than once.

    Never along an axis of size one: next to other positions that is one label throughout, which a
    convolution refuses.
    """
    sizes = (state.channels, *state.space) if state.is_map else (*state.space, state.channels)
    dim = draw(st.sampled_from([axis for axis, size in enumerate(sizes, 1) if size > 1]))
    counts = [2 if axis == dim else 1 for axis in range(len(sizes) + 1)]
    code = pick(
        draw,
        lambda self, x: x.repeat(*counts),
        lambda self, x: x.tile(*counts),
        lambda self, x: x.repeat_interleave(2, dim),
    )
    if dim == state.channel_dim:
        return Stage(Code(code), replace(state, channels=2 * state.channels))
    space = [
        2 * size if axis == dim else size
        for axis, size in zip(state.position_dims, state.space, strict=True)
    ]
    return Stage(Code(code), replace(state, space=tuple(space)))
