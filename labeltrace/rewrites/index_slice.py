"""Slices along one dimension, of a label field or of a tensor of the forward half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from labeltrace.flow import ComputedTensor, LabelView, Operand, Select, Slice, TensorSource
from labeltrace.layout import BatchSize, Size, fixed_size


@dataclass(frozen=True, slots=True)
class IndexSlice:
    """The indices `start:stop:step` of one dimension; none of them is negative.

    >>> IndexSlice(1, 0, 4, 2).of((8, 6, 3))
    (8, 2, 3)
    """

    dim: int
    start: int
    stop: int
    step: int = 1

    @property
    def indices(self) -> range:
        return range(self.start, self.stop, self.step)

    def along(self, dim: int) -> IndexSlice:
        """The same indices of another dimension."""
        return replace(self, dim=dim)

    def of(self, sizes: Sequence[Size]) -> tuple[Size, ...]:
        """The sizes of a slice of something with these sizes."""
        return (*sizes[: self.dim], len(self.indices), *sizes[self.dim + 1 :])


@dataclass(frozen=True, slots=True)
class Rows(ComputedTensor):
    """A slice of a tensor of the forward half: a view."""

    tensor: TensorSource
    cut: IndexSlice


def rows_of(operand: Operand, cut: IndexSlice) -> Operand:
    """The slice of an operand; the operand itself if it is broadcast along the dimension."""
    if operand.shape[cut.dim] == 1:
        return operand
    assert operand.tensor is not None  # weights are read from somewhere
    return replace(operand, tensor=Rows(operand.tensor, cut), shape=cut.of(operand.shape))


def slice_read_by(step: Slice | Select, sizes: tuple[Size, ...]) -> IndexSlice | None:
    """The indices that a step reads of a field with these sizes.

    None if they are not a slice of one dimension of the field: the step slices a part of a
    dimension, or several merged ones, or the dynamic batch.
    """
    arrangement = step.source.arrangement
    parts = [part for part in arrangement.groups[step.dim] if arrangement.sizes[part] != 1]
    dims = whole_dimensions(arrangement.sizes, sizes)
    if len(parts) != 1 or parts[0] not in dims:
        return None
    dim = dims[parts[0]]
    size = sizes[dim]
    if isinstance(size, BatchSize):
        return None
    if isinstance(step, Select):
        index = fixed_size(step.index % size)
        return IndexSlice(dim, index, index + 1)
    if isinstance(step.start, BatchSize) or isinstance(step.end, BatchSize):
        return None
    return IndexSlice(dim, *slice(step.start, step.end, step.step).indices(size))


def whole_dimensions(split: Sequence[Size], sizes: Sequence[Size]) -> dict[int, int]:
    """The dimensions of `split` that are not split: which dimension of `sizes` each of them is.

    Dimensions of size one are left out.

    >>> whole_dimensions((8, 2, 3, 5), sizes=(8, 6, 5))  # 6 is split into 2 × 3
    {0: 0, 3: 2}
    """
    dims = {extent: dim for dim, extent in enumerate(_extents(sizes))}
    return {
        part: dims[extent]
        for part, extent in enumerate(_extents(split))
        if split[part] != 1 and extent in dims
    }


def _extents(sizes: Sequence[Size]) -> list[tuple[Size, Size]]:
    """Each size with the product of those before it, which together identify a dimension."""
    return [(prod(sizes[:dim]), size) for dim, size in enumerate(sizes)]


def cut_arrangement(labels: LabelView, sizes: tuple[Size, ...], cut: IndexSlice) -> LabelView:
    """Labels of a field with these sizes, once the field has been replaced by its slice `cut`."""
    arrangement = labels.arrangement
    dims = whole_dimensions(arrangement.sizes, sizes)
    split = tuple(
        len(cut.indices) if dims.get(part) == cut.dim else size
        for part, size in enumerate(arrangement.sizes)
    )
    return replace(labels, arrangement=replace(arrangement, sizes=split))
