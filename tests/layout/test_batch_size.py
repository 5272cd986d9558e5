"""Sizes that depend on the batch: exact for every batch size, and never a guess."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeltrace.errors import LayoutError
from labeltrace.layout import (
    BATCH,
    BatchSize,
    Size,
    SlidingWindow,
    batch_size,
    divides,
    unknown_size,
)

many = settings(max_examples=300, deadline=None)
Numbers = Callable[[int], int]
"""What a size is for each size of the batch."""

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}
COMPARISONS = (operator.lt, operator.le, operator.gt, operator.ge)


@st.composite
def sizes(draw: st.DrawFn) -> tuple[Size, Numbers, range]:
    """A size, the same computed on plain integers, and the batch sizes that it is for."""
    step = draw(st.sampled_from([1, 1, 2, 3]))
    remainder = draw(st.integers(0, step - 1))
    smallest = draw(st.integers(2, 5))
    first = smallest + (remainder - smallest) % step
    batches = range(first, 400, step)
    batch = batch_size(smallest, step=step, remainder=remainder)
    size: Size = batch
    numbers: Numbers = int
    for _ in range(draw(st.integers(0, 3))):
        size, numbers = _next(draw, size, numbers, batch)
    return size, numbers, batches


def _next(draw: st.DrawFn, size: Size, numbers: Numbers, batch: BatchSize) -> tuple[Size, Numbers]:
    sign = draw(st.sampled_from([*OPERATIONS, "of batch"]))
    if sign == "of batch":
        operation = draw(st.sampled_from([operator.add, operator.sub, operator.mul]))
        return operation(batch, size), lambda b: operation(b, numbers(b))
    number = draw(st.integers(1, 4))
    operation = OPERATIONS[sign]
    return operation(size, number), lambda b: operation(numbers(b), number)


@many
@given(sizes())
def test_arithmetic_is_that_of_integers(drawn: tuple[Size, Numbers, range]) -> None:
    size, numbers, batches = drawn
    expected = [numbers(batch) for batch in batches]
    if isinstance(size, int):
        assert expected == [size] * len(expected)
        return
    assert [size.at(batch) for batch in batches] == expected
    written = compile(str(size), "size", "eval")
    assert [eval(written, {"B": batch}) for batch in batches] == expected
    assert len(set(expected)) > 1  # what is constant is a plain integer
    lower, upper = size.bounds
    assert lower <= min(expected) and max(expected) <= upper


@many
@given(sizes(), st.integers(-3, 20))
def test_comparisons_are_right_for_every_batch_or_refused(
    drawn: tuple[Size, Numbers, range], number: int
) -> None:
    size, numbers, batches = drawn
    assert (size == number) == all(numbers(batch) == number for batch in batches)
    for compare in COMPARISONS:
        try:
            found = compare(size, number)
        except LayoutError as error:
            assert "is known at run time alone" in str(error)
            continue
        assert all(compare(numbers(batch), number) == found for batch in batches)


@many
@given(sizes(), sizes())
def test_equal_sizes_are_equal_for_every_batch(
    one: tuple[Size, Numbers, range], other: tuple[Size, Numbers, range]
) -> None:
    (first, left, batches), (second, right, others) = one, other
    both = [batch for batch in batches if batch in others]
    if batches.step == others.step and both:
        same = all(left(batch) == right(batch) for batch in both)
        assert (first == second) == same
        assert not same or hash(first) == hash(second)


@many
@given(sizes(), sizes())
def test_a_divisor_divides_for_every_batch(
    one: tuple[Size, Numbers, range], other: tuple[Size, Numbers, range]
) -> None:
    (size, numbers, batches), (factor, factors, others) = one, other
    if batches != others:
        return
    if divides(factor, size):
        assert all(numbers(b) % factors(b) == 0 for b in batches if factors(b))
    product = size * factor
    if all(map(factors, batches)):
        assert divides(factor, product)
        assert product // factor == size


@many
@given(sizes(), st.integers(2, 7))
def test_a_number_divides_exactly_where_it_does_for_every_batch(
    drawn: tuple[Size, Numbers, range], number: int
) -> None:
    size, numbers, batches = drawn
    assert (size % number == 0) == all(numbers(batch) % number == 0 for batch in batches)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (BATCH // 2, "B // 2"),
        (BATCH - BATCH // 2, "(B + 1) // 2"),
        (BATCH - 1, "B - 1"),
        (3 * (BATCH // 2) + 1, "3*(B // 2) + 1"),
        (BATCH % 3, "B % 3"),
        (49 * BATCH, "49*B"),
        (batch_size(step=2) // 2 * 2, "B"),
        (unknown_size("u0") * 4 // 2, "2*u0"),
        (unknown_size("u0") // 2, "(u0) // 2"),
    ],
)
def test_sizes_as_a_person_writes_them(size: Size, text: str) -> None:
    assert str(size) == text


def test_the_range_of_the_batch_decides() -> None:
    half = batch_size(smallest=8) // 2
    assert half >= 4 and not half < 4 and half
    assert (3 * BATCH - 1) // BATCH == 2
    assert 0 // (batch_size(step=2) - 3) == 0
    assert -1 % BATCH == BATCH - 1 and 2 % (2 * BATCH) == 2
    assert batch_size(largest=9) < 10


def test_what_depends_on_the_batch_is_no_number() -> None:
    with pytest.raises(TypeError):
        range(BATCH)  # type: ignore[call-overload]
    with pytest.raises(LayoutError, match="how often B goes into 6 is known at run time alone"):
        6 // BATCH
    with pytest.raises(LayoutError, match="a size of B depends on the batch, where it has to be a"):
        SlidingWindow(3).count(BATCH)
    with pytest.raises(LayoutError, match="B cannot be divided by 0"):
        BATCH // 0
    with pytest.raises(LayoutError, match="B // 2 has no value for a batch of 5"):
        (batch_size(step=2) // 2).at(5)
