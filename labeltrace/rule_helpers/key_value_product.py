"""Pending products: keys times values, summed over positions, before it is clear what they are.

See :mod:`labeltrace.rule_helpers.linear_attention`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from labeltrace.layout import Axis, Factor, Layout, renumbered
from labeltrace.rule_helpers.named_operand import NamedOperand

AxisRun = tuple[str, int]
"""A letter and which run of its axis: neighbouring factors that all are positions, or not."""


def position_runs(axis: Axis) -> tuple[Axis, ...]:
    """The runs of an axis; an axis of size one is a single, empty run."""
    grouped = groupby(axis, key=lambda factor: factor.is_position)
    return tuple(tuple(run) for _, run in grouped) or ((),)


@dataclass(frozen=True, slots=True)
class KeyValueProduct:
    """Keys times values: both sides, and what each opaque factor of the result (by slot) is.

    ``parts`` says which run of which letter's axis it stands for, ``axes`` of what that is made.
    """

    sides: tuple[NamedOperand, NamedOperand]
    parts: tuple[AxisRun, ...]
    axes: tuple[Axis, ...]

    def as_channel_weights(self, layout: Layout) -> Layout:
        """The layout once a non-linear step has made weights of the product."""
        known = [
            tuple(inner for factor in axis for inner in self._expand_factor(factor))
            for axis in layout.axes
        ]
        return renumbered(known)

    def _expand_factor(self, factor: Factor) -> Axis:
        return self.axes[factor.field_dim] if factor.is_position else (factor,)
