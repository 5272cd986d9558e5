"""The equations of label functions, each parsed once."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from labeltrace.index_notation.attention_equation import AttentionEquation
from labeltrace.index_notation.linear_mixing_equation import LinearMixingEquation
from labeltrace.index_notation.mixing_equation import MixingEquation
from labeltrace.index_notation.parsing import Axes

Equation = TypeVar("Equation")


def cache_unless_compiling(parse: Callable[[str], Equation]) -> Callable[[str], Equation]:
    """Parse each text once, except under `torch.compile`, which traces no caches."""
    known = functools.cache(parse)

    @functools.wraps(parse)
    def equation_of(text: str) -> Equation:
        return parse(text) if torch.compiler.is_compiling() else known(text)

    return equation_of


@cache_unless_compiling
def mixing_equation(text: str) -> MixingEquation:
    """The equation of a mixing step."""
    return MixingEquation.parse(text)


@cache_unless_compiling
def attention_equation(text: str) -> AttentionEquation:
    """The equation of a mixing step by attention maps."""
    return AttentionEquation.parse(text)


@cache_unless_compiling
def linear_mixing_equation(text: str) -> LinearMixingEquation:
    """The equation of a mixing step in linear time."""
    return LinearMixingEquation.parse(text)


def split_shape(shape: Sequence[int], axes: Axes, sizes: dict[str, int]) -> list[int]:
    """The sizes of all names; one in each pair of parentheses follows from the others."""
    found: list[int] = []
    for axis, size in zip(axes, shape, strict=True):
        known = math.prod([sizes.get(name, 1) for name in axis])
        found.extend(sizes[name] if name in sizes else size // known for name in axis)
    return found
