"""Steps that move the positions of single axes: slices, repeats, padding, windows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from labeltrace.flow import LabelView, Operand
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    Size,
    arrange_positions,
    has_positions,
    pure_positions,
    renumbered,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MovedLabels:
    """Labels of an operand, with one dimension for each axis whose positions move.

    Attributes:
        view: the operand's labels with these dimensions.
        dims: which dimension of the field each of these axes is.
        layout: the operand's layout over this field, before positions are moved.
    """

    view: LabelView
    dims: Mapping[int, int]
    layout: Layout

    def by_dimension(self, values: Mapping[int, T], default: T) -> tuple[T, ...]:
        """Values by axis as values by dimension of the field; other dimensions have `default`."""
        found = {self.dims[axis]: value for axis, value in values.items()}
        return tuple(found.get(dim, default) for dim in range(len(self.view.arrangement.groups)))


def moved_labels(source: Operand, axes: Collection[int]) -> MovedLabels:
    """The labels of `source` for a step that moves positions along `axes`.

    >>> from labeltrace.layout import input_layout
    >>> source = Operand(("self",), (7, 6, 5, 8), input_layout((7, 6, 5, 8), channel_dim=3))
    >>> moved = moved_labels(source, [2])
    >>> moved.view.arrangement.shape, moved.dims
    ((7, 6, 5), {2: 2})
    """
    arrangement, dims, layout = arrange_positions(source.traced_layout, list(axes))
    return MovedLabels(LabelView(source, arrangement), dims, layout)


def position_axis(size: Size, instead_of: Axis = ()) -> Axis:
    """An axis of `size` positions, of samples if it takes the place of an axis of samples."""
    kinds = {factor.kind for factor in instead_of if factor.size != 1}
    return (Factor(size, Kind.BATCH if kinds == {Kind.BATCH} else Kind.POSITION),)


def resized_positions(layout: Layout, sizes: Mapping[int, Size]) -> Layout:
    """A layout over a new field, in which each axis of `sizes` is one position factor of that size.

    An axis of samples stays one.

    >>> from labeltrace.layout import input_layout
    >>> print(resized_positions(input_layout((7, 6, 5, 8), channel_dim=3), {1: 4}))
    (7 batch, 4 position, 5 position, 8 channel)
    """
    return renumbered(
        [
            position_axis(sizes[dim], axis) if dim in sizes else axis
            for dim, axis in enumerate(layout.axes)
        ]
    )


def is_mixed(axis: Axis) -> bool:
    """Whether an axis has both positions and other factors, so that they cannot move alone."""
    return has_positions(axis) and not pure_positions(axis)
