"""Random architectures: real `nn` layers and tensor code, composed by hypothesis.

The strategy draws stage after stage for the activation at hand, a map (B, C, rows, columns) or
tokens (B, N, C). `tests.random_architectures.stages` says how to read a stage.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from math import prod

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import nn

from tests.helpers.code_module import Code
from tests.random_architectures import stages
from tests.random_architectures.drawing import pick
from tests.random_architectures.registry import registered_stages
from tests.random_architectures.stages.convolution import same_convolution
from tests.random_architectures.state import (
    IMAGE_CHANNELS,
    Architecture,
    Stage,
    State,
    composed,
)

MAX_POSITIONS = 48  # more make a test slow
MAX_CHANNELS = 24
MAX_DEPTH = 2  # of branches inside branches

for file in pkgutil.iter_modules(stages.__path__, f"{stages.__name__}."):
    importlib.import_module(file.name)  # registers the stages of the file


@st.composite
def architectures(draw: DrawFn) -> Architecture:
    """Models of one to five stages (stages may hold stages) and a head, with random weights."""
    image_size = draw(st.sampled_from([(6, 5), (4, 7), (3, 10), (1, 11)]))
    state = State(IMAGE_CHANNELS, image_size)
    chain: list[Stage] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 3)))
        for _ in range(draw(st.integers(1, 5))):
            chain.append(draw_stage(draw, state, depth=0))
            state = chain[-1].state
        head, channel_dim = draw_head(draw, state)
    modules = [stage.module for stage in chain]
    whole = composed(nn.Sequential(*modules, *([head] if head is not None else [])), state, chain)
    return Architecture(
        model=whole.module,
        image_size=image_size,
        channel_dim=channel_dim,
        promise=whole.promise,
        prior=whole.prior,
        names=whole.names,
    )


def draw_stage(draw: DrawFn, state: State, depth: int) -> Stage:
    """A stage of any kind that fits; those with branches have twice the odds of the others."""
    fitting = [stage for stage in registered_stages() if stage.fits(state)]
    plain = [stage for stage in fitting if not stage.branches]
    branching = [stage for stage in fitting if stage.branches and depth < MAX_DEPTH]
    chosen = draw(st.sampled_from([*plain, *branching, *branching]))
    stage = chosen.draw(draw, state, lambda state: draw_branch(draw, state, depth))
    if prod(stage.state.space) > MAX_POSITIONS or stage.state.channels > MAX_CHANNELS:
        return same_convolution(draw, state)
    return stage


def draw_branch(draw: DrawFn, state: State, depth: int) -> Stage:
    """A short chain of stages that leaves channels and sizes as they are."""
    chain: list[Stage] = []
    for _ in range(draw(st.integers(1, 2))):
        chain.append(draw_stage(draw, chain[-1].state if chain else state, depth + 1))
    after = chain[-1].state
    if after.is_map != state.is_map or after.space != state.space:
        chain = [same_convolution(draw, state)]
    elif after.channels != state.channels:
        back: nn.Module = nn.Linear(after.channels, state.channels)
        if state.is_map:
            back = nn.Conv2d(after.channels, state.channels, 1)
        state_after = replace(after, channels=state.channels, blended=False)
        chain.append(Stage(back, state_after))
    module = nn.Sequential(*(stage.module for stage in chain))
    return composed(module, chain[-1].state, chain)


def draw_head(draw: DrawFn, state: State) -> tuple[nn.Module | None, int]:
    """What makes the output, and its axis of channels."""
    dims = state.position_dims
    choice = pick(draw, "none", "mean", "flatten", "first")
    if choice == "none":
        return None, state.channel_dim
    if choice == "flatten" and state.channels > 1:  # the positions of one channel are tokens
        layer = nn.Linear(prod(state.space) * state.channels, 5)
        return Code(lambda self, x: self.layer(x.flatten(1)), layer=layer), 1
    if choice == "mean":
        return Code(lambda self, x: x.mean(dims)), 1
    if state.is_map:
        return Code(lambda self, x: x[:, :, 0, -1]), 1
    return Code(lambda self, x: x[:, 0]), 1
