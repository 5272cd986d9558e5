"""Views of one memory that share an element: compared with sets of places, for many batch sizes."""

from __future__ import annotations

import itertools

import pytest

from labeltrace.capture.call_records import TensorRecord
from labeltrace.errors import LayoutError
from labeltrace.layout import BATCH, Size, batch_size, unknown_size
from labeltrace.tracing.overlapping_views import overlap

ROWS, COLUMNS = 5, 7
SAMPLE = ROWS * COLUMNS
EVEN = batch_size(step=2)


def part(
    samples: Size = BATCH,
    rows: Size = ROWS,
    columns: Size = COLUMNS,
    *,
    start: Size = 0,
    strides: tuple[Size, Size, Size] = (SAMPLE, COLUMNS, 1),
) -> TensorRecord:
    return TensorRecord((samples, rows, columns), strides, start, storage=0)


def from_sample(first: Size, samples: Size) -> TensorRecord:
    return part(samples, start=first * SAMPLE)


ROWS_FIRST = (BATCH * COLUMNS, COLUMNS, 1)
"""Strides of a tensor (rows, batch, columns), whose axes are in that order."""

DISJOINT = {
    "other columns": (part(columns=3), part(columns=4, start=3)),
    "other rows": (part(rows=2), part(rows=1, start=4 * COLUMNS)),
    "other columns of parts of the batch": (
        part(BATCH // 2, columns=3),
        part(BATCH - 1, columns=4, start=SAMPLE + 3),
    ),
    "halves": (from_sample(0, BATCH // 2), from_sample(BATCH // 2, BATCH - BATCH // 2)),
    "the last sample": (from_sample(BATCH - 1, 1), from_sample(0, BATCH - 1)),
    "every second sample": (
        part(EVEN // 2, strides=(2 * SAMPLE, COLUMNS, 1)),
        part(EVEN // 2, strides=(2 * SAMPLE, COLUMNS, 1), start=SAMPLE),
    ),
    "rows before the batch": (
        part(2, BATCH, COLUMNS, strides=ROWS_FIRST),
        part(3, BATCH, COLUMNS, strides=ROWS_FIRST, start=2 * BATCH * COLUMNS),
    ),
    "columns after the batch": (
        part(ROWS, BATCH, 3, strides=ROWS_FIRST),
        part(ROWS, BATCH, 4, strides=ROWS_FIRST, start=3),
    ),
    "nothing": (part(columns=0), part()),
}
MEETING = {
    "all": (part(), part()),
    "a column": (part(columns=4), part(columns=4, start=3)),
    "the later half": (part(), from_sample(BATCH // 2, BATCH - BATCH // 2)),
    "a sample": (from_sample(0, BATCH // 2 + 1), from_sample(BATCH // 2, BATCH - BATCH // 2)),
    "pairs": (part(EVEN), part(EVEN // 2, strides=(2 * SAMPLE, COLUMNS, 1))),
}
UNSURE = {
    "rows across the end of a sample": (
        part(1, 2, start=BATCH // 2 * SAMPLE + (ROWS - 1) * COLUMNS),
        part(1, 1, start=20 * SAMPLE),
    ),
    "a sample in the middle": (from_sample(BATCH // 2, 1), from_sample(20, 1)),
    "a sample and the first half": (from_sample(20, 1), from_sample(0, BATCH - BATCH // 2)),
}


def places(view: TensorRecord, batch: int) -> set[int]:
    """Every place of the memory that a view has, counted one by one."""

    def at(size: Size) -> int:
        return size if isinstance(size, int) else size.at(batch)

    ranges = [range(at(size)) for size in view.shape]
    steps = [at(stride) for stride in view.strides]
    return {
        at(view.offset) + sum(index * step for index, step in zip(indices, steps, strict=True))
        for indices in itertools.product(*ranges)
    }


@pytest.mark.parametrize("name", DISJOINT)
def test_views_that_never_meet(name: str) -> None:
    one, other = DISJOINT[name]
    assert all(not places(one, batch) & places(other, batch) for batch in (2, 4, 8, 26))
    assert not overlap(one, other)
    assert not overlap(other, one)


@pytest.mark.parametrize("name", MEETING)
def test_views_that_meet(name: str) -> None:
    one, other = MEETING[name]
    assert any(places(one, batch) & places(other, batch) for batch in (2, 4, 8, 26))
    assert overlap(one, other)
    assert overlap(other, one)


@pytest.mark.parametrize("name", UNSURE)
def test_views_that_meet_in_large_batches_alone(name: str) -> None:
    one, other = UNSURE[name]
    assert not any(places(one, batch) & places(other, batch) for batch in range(2, 8))
    assert any(places(one, batch) & places(other, batch) for batch in (38, 40, 60))
    with pytest.raises(LayoutError, match="write in place reaches another view of the same memory"):
        overlap(one, other)


def test_a_view_whose_place_is_decided_by_values() -> None:
    with pytest.raises(LayoutError, match="whose size or place depends on the values of tensors"):
        overlap(part(), part(1, start=unknown_size("u0")))
