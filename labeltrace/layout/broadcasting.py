"""Broadcasting: the layouts of several operands of one element-wise operator, brought together.

Two operands can have axes of equal size that are made of different factors: 24 tokens of one are
4 rows × 6 columns of the other. `align_axes` cuts both into common factors.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from labeltrace.errors import LayoutError
from labeltrace.layout.arrangement import Arrangement, arrange
from labeltrace.layout.batch_size import Size, divides, growth
from labeltrace.layout.factors import (
    Axis,
    Factor,
    Kind,
    axis_size,
    axis_text,
    has_positions,
    positions,
)
from labeltrace.layout.layout import Layout
from labeltrace.layout.splitting import SplitFactor, number_field_dims, split_factors, take


@dataclass(frozen=True, slots=True)
class CommonFactor:
    """A run of indices of one axis that no operand needs to cut further.

    Attributes:
        size: the number of its indices.
        parts: each operand's factors of that run, `None` where the operand is broadcast.
        concatenated: whether the operands follow one another along it.
    """

    size: Size
    parts: tuple[Axis | None, ...]
    concatenated: bool = False

    @property
    def varies(self) -> bool:
        """Whether the label varies along it."""
        return self.concatenated or any(
            part is not None and has_positions(part) and not self._repeats_one(part)
            for part in self.parts
        )

    def _repeats_one(self, part: Axis) -> bool:
        """Whether a part is copies of a single position: all its indices have one label."""
        return self.size != 1 and axis_size(positions(part)) == 1

    @property
    def factor(self) -> Factor:
        """It as one factor of the result's layout, without a field dimension yet."""
        kinds = {factor.kind for part in self.parts if part is not None for factor in part}
        if self.concatenated:
            return Factor(self.size, Kind.BATCH if kinds == {Kind.BATCH} else Kind.POSITION)
        for kind in Kind:  # in the order of precedence
            if kind in kinds and (self.varies or kind in (Kind.CHANNEL, Kind.REPEATED)):
                return Factor(self.size, kind)
        return Factor(self.size, Kind.CHANNEL)


@dataclass(frozen=True, slots=True)
class Alignment:
    """Operands of one element-wise operator, cut into common factors.

    Attributes:
        layouts: the operands' layouts, their factors split where a common factor ends.
        axes: the common factors of each axis of the result.
    """

    layouts: tuple[Layout, ...]
    axes: tuple[tuple[CommonFactor, ...], ...]

    @property
    def layout(self) -> Layout:
        """The layout of the result, over a new field: one dimension for each factor that varies."""
        field_dim = 0
        axes: list[Axis] = []
        for factors in self.axes:
            axis: list[Factor] = []
            for common in factors:
                axis.append(replace(common.factor, field_dim=field_dim if common.varies else -1))
                field_dim += common.varies
            axes.append(tuple(axis))
        return Layout(tuple(axes))

    def arrangement(self, operand: int) -> Arrangement:
        """The operand's field with the dimensions of the result, broadcast ones of size one."""
        groups = [
            common.parts[operand] or ()
            for factors in self.axes
            for common in factors
            if common.varies
        ]
        return arrange(self.layouts[operand], groups)


def align_axes(
    layouts: Sequence[Layout], shape: Sequence[Size], concatenated: int | None = None
) -> Alignment:
    """Cut the axes of broadcast operands into common factors.

    Args:
        layouts: the operands' layouts.
        shape: the shape of the result, to which the operands broadcast.
        concatenated: the axis along which the operands follow one another, if there is one. It is
            not compared: it becomes one common factor that has each operand's whole axis.

    Raises:
        LayoutError: two operands cut an axis in ways that do not nest.

    Tokens in the order of rows plus tokens in the order of columns, and a mean that is broadcast:
    both orders are positions all through, so 24 positions are one common factor.

    >>> from labeltrace.layout.layout import input_layout
    >>> from labeltrace.layout.views import permute, view
    >>> image = input_layout((2, 4, 6, 3), channel_dim=3)
    >>> by_rows = view(image, (2, 24, 3))
    >>> by_columns = view(permute(image, (0, 2, 1, 3)), (2, 24, 3))
    >>> print(by_columns)
    (2 batch, 6 position * 4 position, 3 channel)
    >>> mean = input_layout((2, 1, 3), channel_dim=2)
    >>> alignment = align_axes([by_rows, by_columns, mean], (2, 24, 3))
    >>> print(alignment.layout)
    (2 batch, 24 position, 3 channel)
    >>> [alignment.arrangement(operand).shape for operand in range(3)]
    [(2, 24), (2, 24), (2, 1)]
    """
    padded = [((),) * (len(shape) - len(layout.axes)) + layout.axes for layout in layouts]
    sizes_by_axis: list[tuple[Size, ...]] = []
    for dim, size in enumerate(shape):
        if dim == concatenated or size == 0:  # nothing is compared
            sizes_by_axis.append((size,))
            continue
        axes = [axes[dim] if axis_size(axes[dim]) == size else None for axes in padded]
        sizes_by_axis.append(_common_sizes(axes, size))
    refined = tuple(
        _split_at_common_sizes(layout, padded[operand], sizes_by_axis, shape)
        for operand, layout in enumerate(layouts)
    )
    common: list[tuple[CommonFactor, ...]] = []
    for dim, sizes in enumerate(sizes_by_axis):
        if dim == concatenated:
            whole = tuple(layout.axes[dim] for layout in refined)
            common.append((CommonFactor(shape[dim], whole, concatenated=True),))
            continue
        parts = [_group_by_size(layout.axes[dim], sizes) for layout in refined]
        common.append(
            tuple(
                CommonFactor(size, tuple(None if part is None else part[index] for part in parts))
                for index, size in enumerate(sizes)
            )
        )
    return Alignment(refined, tuple(common))


def _common_sizes(axes: Sequence[Axis | None], size: Size) -> tuple[Size, ...]:
    """The sizes of the common factors into which every operand's axis can be cut.

    Axes are cut where all operands have a boundary. Between two such boundaries, an operand that
    has both positions and channels there needs all other boundaries as well.

    >>> rows, columns = Factor(4, Kind.POSITION), Factor(6, Kind.POSITION)
    >>> _common_sizes([(rows, columns), (columns, rows)], 24)  # positions all through
    (24,)
    >>> _common_sizes([(rows, columns), (rows, Factor(6, Kind.CHANNEL))], 24)
    (4, 6)
    >>> tokens, heads = Factor(24, Kind.POSITION), Factor(4, Kind.CHANNEL)
    >>> _common_sizes([(tokens,), (heads, columns)], 24)  # tokens are cut where heads end
    (4, 6)
    """
    present = [axis for axis in axes if axis]
    if size == 0:
        return (0,)
    if not present:  # broadcast by a constant, or an axis of size one without a factor
        return () if size == 1 else (size,)
    every = [_boundaries(axis) for axis in present]
    shared = sorted(set.intersection(*every), key=growth)
    bounds = [shared[0]]
    for low, high in itertools.pairwise(shared):
        if all(_is_homogeneous(axis, low, high) for axis in present):
            bounds.append(high)
            continue
        inside = (b for b in set.union(*every) if growth(low) < growth(b) <= growth(high))
        bounds.extend(sorted(inside, key=growth))
    for low, high in itertools.pairwise(bounds):
        if not divides(low, high):
            texts = ", ".join(axis_text(axis) for axis in present)
            raise LayoutError(f"operands cut an axis in ways that do not nest: {texts}")
    return tuple(b // a for a, b in itertools.pairwise(bounds))[::-1] or (size,)


def _boundaries(axis: Axis) -> set[Size]:
    """Where the factors of an axis end, counted from its last index: products of trailing sizes.

    >>> sorted(_boundaries((Factor(4, Kind.POSITION), Factor(6, Kind.POSITION))))
    [1, 6, 24]
    """
    bounds: set[Size] = {1}
    inner: Size = 1
    for factor in reversed(axis):
        inner *= factor.size
        bounds.add(inner)
    return bounds


def _is_homogeneous(axis: Axis, low: Size, high: Size) -> bool:
    """Whether an axis between two of its boundaries is only batch, positions or channels."""
    inner: Size = 1
    seen = set()
    for factor in reversed(axis):
        if growth(low) <= growth(inner) < growth(high):
            seen.add(factor.kind if factor.is_position else Kind.CHANNEL)
        inner *= factor.size
    return len(seen) <= 1


def _split_at_common_sizes(
    layout: Layout,
    axes: Sequence[Axis],
    sizes_by_axis: Sequence[tuple[Size, ...]],
    shape: Sequence[Size],
) -> Layout:
    """The layout with every factor split where a common factor of its axis ends.

    >>> from labeltrace.layout.layout import input_layout
    >>> tokens = input_layout((2, 24, 3), channel_dim=2)
    >>> print(_split_at_common_sizes(tokens, tokens.axes, [(2,), (4, 6), (3,)], (2, 24, 3)))
    (2 batch, 4 position * 6 position, 3 channel)
    """
    split_axes: list[tuple[SplitFactor, ...]] = []
    for axis, sizes, size in zip(axes, sizes_by_axis, shape, strict=True):
        queue = split_factors(axis)
        if axis_size(axis) != size:  # broadcast
            split_axes.append(tuple(queue))
            continue
        queue.reverse()  # the next factor is the last one
        split: list[SplitFactor] = []
        for common_size in sizes:
            split.extend(take(queue, common_size, layout, shape))
        split_axes.append((*split, *reversed(queue)))
    return number_field_dims(split_axes)


def _group_by_size(axis: Axis, sizes: Sequence[Size]) -> list[Axis] | None:
    """The factors of an axis in groups of the given sizes; None where the axis is broadcast.

    >>> rows, columns = Factor(4, Kind.POSITION, 1), Factor(6, Kind.POSITION, 2)
    >>> [axis_text(group) for group in _group_by_size((rows, columns), (4, 6))]
    ['4 position', '6 position']
    >>> [axis_text(group) for group in _group_by_size((rows, columns), (24,))]
    ['4 position * 6 position']
    """
    if axis_size(axis) != prod(sizes):
        return None
    groups: list[Axis] = []
    remaining = list(axis)
    for size in sizes:
        group: list[Factor] = []
        while remaining and (axis_size(tuple(group)) != size or (size == 1 and not group)):
            group.append(remaining.pop(0))
        groups.append(tuple(group))
    if groups:
        groups[-1] = groups[-1] + tuple(remaining)
    return groups
