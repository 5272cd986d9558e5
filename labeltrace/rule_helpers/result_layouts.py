"""The layout of a product's result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labeltrace.flow import NamedOperand
from labeltrace.index_notation.parsing import Names
from labeltrace.layout import (
    Axis,
    Kind,
    Layout,
    Size,
    channel,
    has_channels,
    has_positions,
    renumbered,
)


def weights_layout(
    sides: Sequence[NamedOperand], result: Names, sizes: Mapping[str, Size]
) -> Layout:
    """The layout of weights: each letter's axis from the first side that has positions there."""
    axes: list[Axis] = []
    for letter in result:
        found = [side.axes[letter] for side in sides if letter in side.axes]
        varying = [axis for axis in found if has_positions(axis)]
        axes.append(next(iter(varying or found), channel(sizes[letter])))
    return renumbered(axes)


def surviving_layout(side: NamedOperand, result: Names) -> Layout:
    """A side's own layout on the letters of the result; contracted channels are gone."""
    return Layout(tuple(side.axes.get(letter, ()) for letter in result))


def kind_of_new_axis(stream: NamedOperand, result: Names) -> Kind:
    """What a new axis holds in place of contracted axes without positions: channels or copies.

    If copies or an axis of size one are contracted, the channels are in other axes and stay there.
    """
    kept = any(has_channels(axis) for letter, axis in stream.axes.items() if letter in result)
    gone = any(has_channels(axis) for letter, axis in stream.axes.items() if letter not in result)
    return Kind.REPEATED if kept and not gone else Kind.CHANNEL
