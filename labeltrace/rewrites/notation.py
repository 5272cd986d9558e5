"""The notation of mixing steps, read."""

from __future__ import annotations

import re

Axes = tuple[tuple[str, ...], ...]
"""The names of each axis; several where it is made of several factors."""


def read_axes(text: str) -> Axes:
    """The axes of one operand, ``"(b h) q k"``."""
    return tuple(tuple(axis.strip("()").split()) for axis in re.findall(r"\([^)]*\)|\w+", text))


def read_mixing(notation: str) -> tuple[Axes, tuple[str, ...], tuple[str, ...]]:
    """The axes of the weights, the names of the labels, and those of the result."""
    inputs, result = notation.split("->")
    weights, labels = inputs.split(",")
    return read_axes(weights), tuple(labels.split()), tuple(result.split())
