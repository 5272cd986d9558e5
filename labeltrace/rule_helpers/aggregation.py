"""The mean over positions that an operator contracts together with channels."""

from __future__ import annotations

from collections.abc import Sequence

from labeltrace.flow import Aggregate, LabelView, Operand
from labeltrace.layout import Axis, Factor, Layout, arrange, positions


def aggregation(
    source: Operand, layout: Layout, kept: Sequence[Axis], gone: Sequence[Axis]
) -> Aggregate:
    """The mean over the positions of some axes of an operand (contract, point 7).

    Args:
        source: the operand.
        layout: the layout of the result, with positions numbered in the order of its axes.
        kept: the operand's axes that the result has, in the result's order.
        gone: the axes whose positions are averaged.
    """
    groups: list[tuple[Factor, ...]] = [(f,) for axis in kept for f in positions(axis)]
    groups += [(f,) for axis in gone for f in positions(axis)]
    count = sum(len(positions(axis)) for axis in gone)
    labels = LabelView(source, arrange(source.traced_layout, groups))
    return Aggregate(layout=layout, source=labels, count=count)
