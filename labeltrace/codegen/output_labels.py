"""The label of an output: which steps bring a label field into its form (contract, point 10).

The label of an output (B, tokens, classes) is (B, tokens, K): K takes the place of the class axis,
and every other axis keeps its size. Positions inside the class axis are averaged, and positions
that share a label are repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labeltrace.errors import LayoutError
from labeltrace.layout import (
    Arrangement,
    Axis,
    Layout,
    Size,
    arrange,
    axis_size,
    axis_text,
    has_channels,
    has_positions,
    positions,
)


@dataclass(frozen=True, slots=True)
class Repetition:
    """How often each dimension of a field is repeated.

    Attributes:
        counts: one for each dimension.
        interleave: each index by itself, as by `torch.repeat_interleave`; else the whole
            dimension, as by `torch.Tensor.repeat`.
    """

    counts: tuple[Size, ...]
    interleave: bool


@dataclass(frozen=True, slots=True)
class OutputLabel:
    """The steps from a label field to the label of an output, in their order.

    Attributes:
        arrangement: the dimensions of the output's axes, then those inside the class axis.
        averaged: how many of the last dimensions are averaged: those inside the class axis.
        repetitions: the dimensions whose positions are repeated along an output's axis.
        sizes: the size to which each dimension is expanded; -1 keeps it.
        class_dim: the place of K.
    """

    arrangement: Arrangement
    averaged: int
    repetitions: tuple[Repetition, ...]
    sizes: tuple[Size, ...]
    class_dim: int

    @property
    def is_field(self) -> bool:
        """Whether nothing remains to be done after the repetitions: K is last, no size changes."""
        return self.class_dim == len(self.sizes) and all(size == -1 for size in self.sizes)


def output_label(layout: Layout) -> OutputLabel:
    """The steps to the label of an output with this layout.

    Raises:
        LayoutError: positions are repeated in two ways along one axis.

    The logits of a classifier (B, classes): the field (B, K) is their label as it is.

    >>> from labeltrace.layout import input_layout
    >>> output_label(input_layout((2, 10), channel_dim=1)).is_field
    True

    A map (B, classes, rows, columns): K moves to the second place.

    >>> segmentation = output_label(input_layout((2, 10, 4, 6), channel_dim=1))
    >>> segmentation.class_dim, segmentation.sizes
    (1, (-1, -1, -1))
    """
    class_dim = class_axis(layout)
    others = [axis for dim, axis in enumerate(layout.axes) if dim != class_dim]
    averaged = [f for axis in layout.axes if has_channels(axis) for f in positions(axis)]
    groups = [() if has_channels(axis) else positions(axis) for axis in others]
    sizes = [_expanded_size(axis) for axis in others]
    repetitions = _repetitions(others)
    arrangement = arrange(layout, [*groups, *((factor,) for factor in averaged)])
    return OutputLabel(arrangement, len(averaged), repetitions, tuple(sizes), class_dim)


def class_axis(layout: Layout) -> int:
    """The axis of an output in whose place its label has the K sources.

    It is the last axis that has channels; if there is none, K is appended.
    """
    channels = [dim for dim, axis in enumerate(layout.axes) if has_channels(axis)]
    return channels[-1] if channels else len(layout.axes)


def _expanded_size(axis: Axis) -> Size:
    """The size of a dimension of the label; -1 if the field has the dimension already."""
    if has_positions(axis) and not has_channels(axis):
        return -1
    return axis_size(axis)


def _repetitions(axes: Sequence[Axis]) -> tuple[Repetition, ...]:
    """The repetitions of positions along these axes: those of single indices come first."""
    counts = [repetition(axis) for axis in axes]
    found = [
        Repetition(tuple(count if each is interleave else 1 for count, each in counts), interleave)
        for interleave in (True, False)
    ]
    return tuple(one for one in found if any(count != 1 for count in one.counts))


def repetition(axis: Axis) -> tuple[Size, bool]:
    """How often the positions of an axis are repeated, and whether each index by itself.

    Raises:
        LayoutError: an axis has repeated factors both before and after its positions.

    >>> from labeltrace.layout import Factor, Kind
    >>> rows, copies = Factor(4, Kind.POSITION, 0), Factor(3, Kind.REPEATED)
    >>> repetition((rows, copies)), repetition((copies, rows)), repetition((rows,))
    ((3, True), (3, False), (1, True))
    """
    if not has_positions(axis):
        return 1, True
    first = next(index for index, factor in enumerate(axis) if factor.is_position)
    last = max(index for index, factor in enumerate(axis) if factor.is_position)
    before, after = (axis_size(part) for part in (axis[:first], axis[last + 1 :]))
    if has_channels(axis) or (before == 1 and after == 1):
        return 1, True
    if before != 1 and after != 1:
        raise LayoutError(
            f"positions are repeated in two ways along an output: {axis_text(axis)}; "
            "return it before these axes are joined to one"
        )
    return before * after, before == 1
