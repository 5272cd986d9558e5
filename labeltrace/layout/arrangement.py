"""Arrangements: the label field with the dimensions that a label step needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from labeltrace.errors import LayoutError
from labeltrace.layout.batch_size import Size
from labeltrace.layout.factors import Axis, Factor, Kind, axis_size, has_positions, positions
from labeltrace.layout.layout import Layout, renumbered


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A label field with other dimensions: split, then reordered, then merged.

    Attributes:
        sizes: the sizes into which the field's dimensions are split.
        groups: for each dimension of the result the split dimensions that it merges, outermost
            first; an empty group is a dimension of size one.

    A field of 2 samples, 4 rows and 6 columns as windows of 2 × 3: `view(2, 2, 2, 2, 3)`, then
    `permute(0, 1, 3, 2, 4)`, then windows and positions in a window merged.

    >>> Arrangement((2, 2, 2, 2, 3), ((0,), (1, 3), (2, 4))).shape
    (2, 4, 6)
    """

    sizes: tuple[Size, ...]
    groups: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> tuple[Size, ...]:
        """The sizes of the result, without K."""
        return tuple(prod(self.sizes[dim] for dim in group) for group in self.groups)


def arrange(layout: Layout, groups: Iterable[Iterable[Factor]]) -> Arrangement:
    """The field with one dimension for each group of factors; channels and repeats are ignored.

    Positions of size one that no group names are merged into the first group, where they change
    nothing.

    Raises:
        LayoutError: a dimension of the field that labels vary along is in no group.

    >>> from labeltrace.layout.layout import input_layout
    >>> image = input_layout((2, 3, 4, 6), channel_dim=1)
    >>> batch, _, rows, columns = image.axes
    >>> tokens_by_column = arrange(image, [batch, columns + rows])
    >>> tokens_by_column.groups, tokens_by_column.shape
    (((0,), (2, 1)), (2, 24))
    """
    sizes = layout.field_sizes
    dims = [tuple(f.field_dim for f in group if f.is_position) for group in groups]
    missing = tuple(set(range(len(sizes))).difference(*dims))
    if any(sizes[dim] != 1 for dim in missing):
        raise LayoutError(f"positions of {layout} would be dropped without being aggregated")
    if missing and dims:
        dims[0] = missing + dims[0]
    return Arrangement(sizes, tuple(dims))


def arrange_by_axis(layout: Layout) -> Arrangement:
    """The field with a dimension for each axis that has positions, in the order of the axes."""
    return arrange(layout, (axis for axis in layout.axes if has_positions(axis)))


def arrange_positions(
    layout: Layout, merged: Sequence[int]
) -> tuple[Arrangement, dict[int, int], Layout]:
    """The field with a dimension for each position, but only one for each of the axes `merged`.

    Returns:
        The arrangement, the dimension of each of the merged axes, and the layout over it.
    """
    groups: list[tuple[Factor, ...]] = []
    axes: list[Axis] = []
    dims: dict[int, int] = {}
    for dim, axis in enumerate(layout.axes):
        if dim not in merged:
            groups.extend((factor,) for factor in positions(axis))
            axes.append(axis)
            continue
        dims[dim] = len(groups)
        groups.append(positions(axis))
        kind = axis[0].kind if len(axis) == 1 else Kind.POSITION
        axes.append((Factor(axis_size(axis), kind),))
    return arrange(layout, groups), dims, renumbered(axes)
