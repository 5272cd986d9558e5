"""Normalization layers."""

from __future__ import annotations

from math import prod

from hypothesis.strategies import DrawFn
from torch import nn

from tests.helpers.code_module import Code
from tests.random_architectures.drawing import pick
from tests.random_architectures.modules import randomized
from tests.random_architectures.registry import stage
from tests.random_architectures.state import Promise, Stage, State


@stage(on="any", promise=Promise.EQUAL)
def normalization(draw: DrawFn, state: State) -> Stage:
    channels = state.channels
    # A layer norm of a single channel is constant: it leaves no information.
    over_channels = Promise.NONE if channels == 1 else Promise.EQUAL
    if not state.is_map:
        layer = pick(draw, nn.LayerNorm(channels), nn.RMSNorm(channels))
        return Stage(randomized(layer), state, over_channels)
    choice = pick(draw, "batch", "layer", "group", "instance")
    if choice == "layer":
        module = Code(
            lambda self, x: self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
            layer=randomized(nn.LayerNorm(channels)),
        )
        return Stage(module, state, over_channels)
    if prod(state.space) < 2:
        choice = "batch"
    layers = {
        "batch": nn.BatchNorm2d(channels),
        "group": nn.GroupNorm(1, channels),
        "instance": nn.InstanceNorm2d(channels),
    }
    promises = {
        "batch": Promise.EQUAL,
        "group": Promise.SOUND,
        # The sum of a map is zero after it, so a later mean holds no information.
        "instance": Promise.NONE,
    }
    return Stage(randomized(layers[choice]), state, promises[choice])
