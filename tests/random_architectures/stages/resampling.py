"""Interpolation to other sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor

from tests.helpers.code_module import Code
from tests.random_architectures.drawing import pick
from tests.random_architectures.registry import stage
from tests.random_architectures.state import Promise, Stage, State

MODES_OF_MAPS = ("nearest", "nearest-exact", "bilinear", "bicubic")
MODES_OF_TOKENS = ("nearest", "nearest-exact", "linear")


@stage(on="any", promise=Promise.EQUAL)
def resampling(draw: DrawFn, state: State) -> Stage:
    """By a whole factor, or to any size."""
    factors = [pick(draw, 1, 2, 3) for _ in state.space]
    whole = draw(st.booleans())
    space = tuple(size * factor for size, factor in zip(state.space, factors, strict=True))
    if not whole:
        space = tuple(max(1, size - draw(st.integers(-2, 2))) for size in state.space)
    mode = pick(draw, *(MODES_OF_MAPS if state.is_map else MODES_OF_TOKENS))
    settings: dict[str, Any] = {"size": space, "mode": mode}
    if whole and draw(st.booleans()):
        settings = {"scale_factor": tuple(map(float, factors)), "mode": mode}
    if "nearest" not in mode:
        settings["align_corners"] = draw(st.booleans())
    if state.is_map and "nearest" not in mode:
        settings["antialias"] = draw(st.booleans())

    def over_map(self: Any, x: Tensor) -> Tensor:
        return F.interpolate(x, **settings)

    def over_tokens(self: Any, x: Tensor) -> Tensor:
        return F.interpolate(x.mT, **settings).mT

    # Weights that only rounding distinguishes from zero differ between single and double precision.
    exact = whole and not settings.get("align_corners") and not settings.get("antialias")
    return Stage(
        Code(over_map if state.is_map else over_tokens),
        replace(state, space=space),
        Promise.EQUAL if exact else Promise.NONE,
    )
