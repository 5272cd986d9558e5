"""Values that are written over others."""

from __future__ import annotations

import torch.nn.functional as F
from hypothesis.strategies import DrawFn

from tests.helpers.code_module import Code
from tests.random_architectures.drawing import pick
from tests.random_architectures.registry import stage
from tests.random_architectures.state import Promise, Stage, State


@stage(on="any", promise=Promise.EQUAL)
def in_place(draw: DrawFn, state: State) -> Stage:
    code = pick(
        draw,
        lambda self, x: F.silu(x * 1.5, inplace=True),
        lambda self, x: (x * 1.9).add_(x.flip(-2)),
        lambda self, x: (x * 2).mul_(0.5).add_(1),
        lambda self, x: (x + 1).sub_(x.roll(1, -2), alpha=0.271),
        lambda self, x: (x + 1).sigmoid_(),
    )
    return Stage(Code(code), state)
