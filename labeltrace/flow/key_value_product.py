"""Keys times values, summed over positions, before a later step shows what they are."""

from __future__ import annotations

from dataclasses import dataclass

from labeltrace.flow.named_operand import NamedOperand
from labeltrace.layout import Axis

AxisRun = tuple[str, int]
"""A letter and a run of its axis: neighboring factors that are all positions, or all not."""


@dataclass(frozen=True, slots=True)
class KeyValueProduct:
    """Keys times values: both sides, and what each opaque factor of the result (by slot) is.

    `parts` says which run of which letter's axis a factor is; `axes` says what that run is made
    of. See `labeltrace.rule_helpers.linear_attention`.
    """

    sides: tuple[NamedOperand, NamedOperand]
    parts: tuple[AxisRun, ...]
    axes: tuple[Axis, ...]
