"""Whether two views of one memory share an element, also where the batch is open."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from labeltrace.capture.call_records import TensorRecord
from labeltrace.errors import LayoutError
from labeltrace.layout import BatchSize, Size, divides

_COMPARED = 6
"""For how many sizes of the batch two views are compared."""

_LARGEST_COMPARED = 4096

_RECORDED = 'leaves open; align(model, engine="recorded") follows the model as it runs'


@dataclass(frozen=True, slots=True)
class PlainView:
    """A view as it is for one size of the batch."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def reach(self) -> int:
        """The place of the last element in the memory."""
        steps = zip(self.shape, self.strides, strict=True)
        return self.offset + sum((n - 1) * s for n, s in steps if n > 0)

    def meets(self, other: PlainView) -> bool:
        """Whether both share an element."""
        if 0 in self.shape or 0 in other.shape:
            return False
        memory = torch.zeros(max(self.reach, other.reach) + 1, dtype=torch.bool)
        memory.as_strided(self.shape, self.strides, self.offset).fill_(True)
        return bool(memory.as_strided(other.shape, other.strides, other.offset).any())


def overlap(first: TensorRecord, second: TensorRecord) -> bool:
    """Whether two views of one memory share an element, for some size of the batch at least.

    Raises:
        LayoutError: that is not sure.
    """
    if any(one.meets(other) for one, other in plain_views(first, second)):
        return True
    is_open = any(_open_sizes(first) + _open_sizes(second))
    if not is_open or _alternate(first, second) or _follow_one_another(first, second):
        return False
    raise LayoutError(
        "whether a write in place reaches another view of the same memory depends on the size of "
        f"the batch, which a captured graph {_RECORDED}"
    )


def plain_views(first: TensorRecord, second: TensorRecord) -> Iterator[tuple[PlainView, PlainView]]:
    """Two views for several sizes of the batch, the largest first; once if none matters.

    Raises:
        LayoutError: a size depends on more than the batch.
    """
    sizes = _open_sizes(first) + _open_sizes(second)
    for batch in _batches(sizes) if sizes else (1,):
        yield _at(first, batch), _at(second, batch)


def _open_sizes(view: TensorRecord) -> list[BatchSize]:
    """The sizes, strides and the offset of a view that depend on the batch."""
    sizes = (*view.shape, *view.strides, view.offset)
    return [size for size in sizes if isinstance(size, BatchSize)]


def _batches(sizes: list[BatchSize]) -> list[int]:
    """Some sizes of the batch for which all of these are known, the largest first."""
    smallest = max(size.smallest for size in sizes)
    largest = min(size.largest for size in sizes)
    allowed = (
        batch
        for batch in range(smallest, smallest + _LARGEST_COMPARED)
        if batch <= largest and all(_is_known(size, batch) for size in sizes)
    )
    found = list(itertools.islice(allowed, _COMPARED))
    if not found:
        raise LayoutError(
            "a part of a tensor is written in place, whose size or place depends on the values of "
            f"tensors, which a captured graph {_RECORDED}"
        )
    return found[::-1]


def _is_known(size: BatchSize, batch: int) -> bool:
    value = size.values[batch % len(size.values)]
    return value is not None and size.is_of_batch and size.at(batch) >= 0


def _at(view: TensorRecord, batch: int) -> PlainView:
    def at(size: Size) -> int:
        return size if isinstance(size, int) else size.at(batch)

    return PlainView(tuple(map(at, view.shape)), tuple(map(at, view.strides)), at(view.offset))


# Proofs for every size of the batch.


def _alternate(first: TensorRecord, second: TensorRecord) -> bool:
    """Whether two views have other places in each period of the memory, a sample for instance."""
    strides = {stride for view in (first, second) for stride in view.strides}
    periods = [stride for stride in strides if isinstance(stride, int) and stride > 1]
    pairs = ((_within(first, period), _within(second, period)) for period in periods)
    return any(one and other and not one.meets(other) for one, other in pairs)


def _within(view: TensorRecord, period: int) -> PlainView | None:
    """A view within one period of the memory; None if it goes across its end, or is not known."""
    axes = zip(view.shape, view.strides, strict=True)
    rest = [(size, stride) for size, stride in axes if not divides(period, stride)]
    shape = tuple(size for size, _ in rest if isinstance(size, int))
    strides = tuple(stride for _, stride in rest if isinstance(stride, int))
    offset = _remainder(view.offset, period)
    if offset is None or not len(shape) == len(strides) == len(rest):
        return None
    found = PlainView(shape, strides, offset)
    return found if found.reach < period else None


def _remainder(offset: Size, period: int) -> int | None:
    try:
        rest = offset % period
    except LayoutError:  # it is not the same for every size of the batch
        return None
    return rest if isinstance(rest, int) else None


def _follow_one_another(first: TensorRecord, second: TensorRecord) -> bool:
    """Whether one of two views ends before the other begins."""
    return _ends_before(first, second) or _ends_before(second, first)


def _ends_before(view: TensorRecord, other: TensorRecord) -> bool:
    last = view.offset
    for size, stride in zip(view.shape, view.strides, strict=True):
        last += (size - 1) * stride
    try:
        return last < other.offset
    except LayoutError:  # for some sizes of the batch only
        return False
