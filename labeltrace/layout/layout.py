"""A layout: the axes of one activation, and where their positions are in the label field."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from labeltrace.layout.batch_size import Size
from labeltrace.layout.factors import Axis, Factor, Kind, axis_size, axis_text


@dataclass(frozen=True, slots=True)
class Layout:
    """The axes of one activation.

    Its label field has `len(field_sizes)` dimensions (and then K); each of them is the `field_dim`
    of exactly one factor.
    """

    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[Size, ...]:
        """The activation's sizes, one for each axis."""
        return tuple(axis_size(axis) for axis in self.axes)

    @property
    def field_sizes(self) -> tuple[Size, ...]:
        """The sizes of the label field's dimensions, without K."""
        by_dim = {f.field_dim: f.size for axis in self.axes for f in axis if f.is_position}
        return tuple(by_dim[dim] for dim in sorted(by_dim))

    def __str__(self) -> str:
        return "(" + ", ".join(axis_text(axis) for axis in self.axes) + ")"


def input_layout(shape: Sequence[Size], channel_dim: int) -> Layout:
    """The layout of the model's input: the batch first, channels at `channel_dim`, else positions.

    >>> print(input_layout((2, 3, 8, 6), channel_dim=1))
    (2 batch, 3 channel, 8 position, 6 position)
    """
    kinds = [Kind.BATCH] + [Kind.POSITION] * (len(shape) - 1)
    kinds[channel_dim] = Kind.CHANNEL
    return renumbered([(Factor(size, kind),) for size, kind in zip(shape, kinds, strict=True)])


def renumbered(axes: Sequence[Axis]) -> Layout:
    """The same axes over a new field, whose dimensions are in the order of the axes."""
    count = itertools.count()
    return Layout(
        tuple(
            tuple(replace(f, field_dim=next(count) if f.is_position else -1) for f in axis)
            for axis in axes
        )
    )


def replace_axis(layout: Layout, dim: int, axis: Axis) -> Layout:
    """The layout with another axis at `dim`; the caller makes sure that field dimensions fit."""
    return Layout((*layout.axes[:dim], axis, *layout.axes[dim + 1 :]))


def factor_kinds(layout: Layout) -> tuple[tuple[tuple[Size, Kind], ...], ...]:
    """Size and kind of each axis's factors, except those of size one: all that weights have."""
    return tuple(tuple((f.size, f.kind) for f in axis if f.size != 1) for axis in layout.axes)
