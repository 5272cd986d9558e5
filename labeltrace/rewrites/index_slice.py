"""Cuts: some indices of a dimension, of a label field or of a tensor of the forward half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from labeltrace.flow import ComputedTensor, LabelView, Operand, Select, Slice, TensorSource
from labeltrace.layout import is_dynamic


@dataclass(frozen=True, slots=True)
class IndexSlice:
    """Some indices of a dimension; ``stop`` is exclusive."""

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

    def of(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The sizes that are left of these."""
        return (*sizes[: self.dim], len(self.indices), *sizes[self.dim + 1 :])


@dataclass(frozen=True, slots=True)
class Rows(ComputedTensor):
    """Some indices of one dimension of a tensor of the forward half: a view."""

    tensor: TensorSource
    cut: IndexSlice


def rows_of(operand: Operand, cut: IndexSlice) -> Operand:
    """The operand cut; itself where it is broadcast along the dimension."""
    if operand.shape[cut.dim] == 1:
        return operand
    assert operand.tensor is not None  # weights are read from somewhere
    return replace(operand, tensor=Rows(operand.tensor, cut), shape=cut.of(operand.shape))


def cut_of(step: Slice | Select, sizes: tuple[int, ...]) -> IndexSlice | None:
    """What a slice reads of a field of these ``sizes``; None unless it cuts one whole dimension."""
    arrangement = step.source.arrangement
    slots = [slot for slot in arrangement.groups[step.dim] if arrangement.sizes[slot] != 1]
    dims = whole_dimensions(arrangement.sizes, sizes)
    if len(slots) != 1 or slots[0] not in dims:
        return None
    dim = dims[slots[0]]
    if is_dynamic(sizes[dim]):
        return None
    if isinstance(step, Select):
        index = step.index % sizes[dim]
        return IndexSlice(dim, index, index + 1)
    return IndexSlice(dim, *slice(step.start, step.end, step.step).indices(sizes[dim]))


def whole_dimensions(split: Sequence[int], sizes: Sequence[int]) -> dict[int, int]:
    """The dimensions of ``split`` that are whole ones of ``sizes``, and which; none of size one."""
    places = {(before, size): dim for dim, (before, size) in enumerate(_placed(sizes))}
    return {
        slot: places[before, size]
        for slot, (before, size) in enumerate(_placed(split))
        if size != 1 and (before, size) in places
    }


def _placed(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Each size with the product of those before it."""
    return [(prod(sizes[:dim]), size) for dim, size in enumerate(sizes)]


def cut_arrangement(labels: LabelView, sizes: tuple[int, ...], cut: IndexSlice) -> LabelView:
    """The labels of a field of which only the ``cut`` is left."""
    arrangement = labels.arrangement
    dims = whole_dimensions(arrangement.sizes, sizes)
    split = tuple(
        len(cut.indices) if dims.get(slot) == cut.dim else size
        for slot, size in enumerate(arrangement.sizes)
    )
    return replace(labels, arrangement=replace(arrangement, sizes=split))
