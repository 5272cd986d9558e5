"""The notation of mixing steps, read."""

from __future__ import annotations

from labeltrace.label_ops.notation import Axes, parse_axes


def read_mixing(notation: str) -> tuple[Axes, tuple[str, ...], tuple[str, ...]]:
    """The axes of the weights, the names of the labels, and those of the result."""
    inputs, result = notation.split("->")
    weights, labels = inputs.split(",")
    return parse_axes(weights), tuple(labels.split()), tuple(result.split())
