"""Small draws that many stages make."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

T = TypeVar("T")


def pick(draw: DrawFn, *options: T) -> T:
    return draw(st.sampled_from(options))


def divisors(number: int, most: int | None = None) -> list[int]:
    """The divisors of a number, up to `most`."""
    return [size for size in range(1, (most or number) + 1) if number % size == 0]
