"""Splitting: factors cut into smaller ones, and the field dimensions that result.

While factors are being cut, a dimension of the field is identified by a sort key instead of a
number: the parts of dimension 2 have the keys `(2, 0)` and `(2, 1)`, which sort between `(1,)` and
`(3,)`. `number_field_dims` turns the keys into numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labeltrace.errors import LayoutError
from labeltrace.layout.batch_size import Size, divides
from labeltrace.layout.factors import Axis, Factor, Kind
from labeltrace.layout.formatting import shape_text, size_text
from labeltrace.layout.layout import Layout


@dataclass(frozen=True, slots=True)
class SplitFactor:
    """A factor while factors are being cut.

    Attributes:
        size: the number of its indices.
        kind: what its indices are.
        key: sorts as the dimensions of the field will; empty for channels and repeats.
    """

    size: Size
    kind: Kind
    key: tuple[int, ...]

    @classmethod
    def of(cls, factor: Factor) -> SplitFactor:
        """A factor that is not cut yet."""
        return cls(factor.size, factor.kind, (factor.field_dim,) if factor.is_position else ())

    def split(self, outer_size: Size) -> tuple[SplitFactor, SplitFactor]:
        """The factor as an outer one of `outer_size` and an inner one."""
        outer, inner = ((*self.key, part) if self.key else () for part in (0, 1))
        inner_size = self.size // outer_size
        return (
            SplitFactor(outer_size, self.kind, outer),
            SplitFactor(inner_size, self.kind, inner),
        )


def number_field_dims(axes: Iterable[Iterable[SplitFactor]]) -> Layout:
    """The axes as a layout: field dimensions are numbered in the order of their keys."""
    frozen = [tuple(axis) for axis in axes]
    keys = sorted(factor.key for axis in frozen for factor in axis if factor.key)
    dims = {key: dim for dim, key in enumerate(keys)}
    return Layout(
        tuple(tuple(Factor(f.size, f.kind, dims.get(f.key, -1)) for f in axis) for axis in frozen)
    )


def take(
    queue: list[SplitFactor], size: Size, layout: Layout, shape: Sequence[Size]
) -> tuple[SplitFactor, ...]:
    """Take factors of product `size` off the queue; the last one is split if it is too large.

    Args:
        queue: the factors that are left, the next one last; changed in place.
        size: the size of the axis to make.
        layout: named in the error.
        shape: named in the error.

    Raises:
        LayoutError: the factors cannot be cut at that size.

    Rows (field dimension 1) and columns (field dimension 2), of which an axis of 10 indices takes
    all 5 rows and 2 of 6 groups of columns:

    >>> rows, columns = SplitFactor(5, Kind.POSITION, (1,)), SplitFactor(12, Kind.POSITION, (2,))
    >>> queue = [columns, rows]
    >>> [(factor.size, factor.key) for factor in take(queue, 10, Layout(()), ())]
    [(5, (1,)), (2, (2, 0))]
    >>> [(factor.size, factor.key) for factor in queue]
    [(6, (2, 1))]
    """
    axis: list[SplitFactor] = []
    if size in (0, 1) and queue and queue[-1].size == size:
        return (queue.pop(),)
    need = size
    while need not in (0, 1):
        if not queue:
            raise LayoutError(f"{layout} has fewer indices than a view {shape_text(shape)} of it")
        factor = queue.pop()
        if factor.size == 1 and not factor.key:
            continue  # a single channel next to other factors does not change the axis
        if divides(factor.size, need):
            axis.append(factor)
            need //= factor.size
        elif divides(need, factor.size) and factor.kind is not Kind.OPAQUE:
            outer, inner = factor.split(need)
            axis.append(outer)
            queue.append(inner)
            need = 1
        else:
            raise LayoutError(
                f"a view of {layout} as {shape_text(shape)} cuts through a factor: an index of "
                f"the axis of size {size_text(size)} would mix parts of several positions"
            )
    return tuple(axis)


def merge_neighbors(factors: Iterable[Factor]) -> list[SplitFactor]:
    """Factors in as few as possible: neighbors that are neighbors in the field as well are merged.

    >>> rows, columns = Factor(4, Kind.POSITION, 1), Factor(6, Kind.POSITION, 2)
    >>> [factor.size for factor in merge_neighbors([rows, columns])]
    [24]
    >>> [factor.size for factor in merge_neighbors([columns, rows])]
    [6, 4]
    """
    merged: list[SplitFactor] = []
    last: Factor | None = None
    for factor in factors:
        if factor.size == 1 and factor.kind is Kind.REPEATED:
            continue
        if last is not None and _mergeable(factor, last):
            outer = merged.pop()
            merged.append(SplitFactor(outer.size * factor.size, outer.kind, outer.key))
        else:
            merged.append(SplitFactor.of(factor))
        last = factor
    return merged


def _mergeable(factor: Factor, last: Factor) -> bool:
    """Whether two neighbors of an axis can be one factor."""
    if factor.kind is not last.kind or factor.kind is Kind.OPAQUE:
        return False
    return factor.field_dim == last.field_dim + 1 or not factor.is_position


def split_factors(axis: Axis) -> list[SplitFactor]:
    """The factors of an axis, none cut and none merged."""
    return [SplitFactor.of(factor) for factor in axis]
