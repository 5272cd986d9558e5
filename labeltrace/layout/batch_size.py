"""Sizes that depend on the size of the batch, with exact arithmetic.

A model that takes half of its batch has axes of `B // 2` indices. For the sizes B that leave the
same remainder when they are divided by a number m, such a size is a polynomial in `B // m`. So a
`BatchSize` is one polynomial for each remainder, and sums, differences, products and quotients by
a number have this form again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor, gcd, inf, lcm
from typing import Final

from labeltrace.errors import LayoutError
from labeltrace.layout.polynomial import Bounds, Polynomial
from labeltrace.layout.remainders import QUOTIENT, Values, refined, simplified
from labeltrace.layout.written_size import WrittenSize, written

_LARGEST_MODULUS: Final = 4096


@dataclass(frozen=True, slots=True)
class BatchSize:
    """A size that depends on the size of the batch, or on other sizes known at run time alone.

    Two of them are equal if they are for every batch size; one is never equal to a number. It can
    be compared with `<` where the outcome is the same for every batch size, and it is no integer:
    Python's `range` does not take it.

    Attributes:
        values: for each remainder of the batch size its polynomial; None for a remainder that no
            batch size has.
        smallest: the smallest batch size.
        largest: the largest one.

    Raises:
        LayoutError: by `<`, `//`, `%` and `bool`, where the outcome depends on the batch size.

    >>> half = BATCH // 2
    >>> print(half, BATCH - half, 4 * BATCH - 1)
    B // 2 (B + 1) // 2 4*B - 1
    >>> half + (BATCH - half) == BATCH, 4 * BATCH // BATCH, half < BATCH
    (True, 4, True)
    >>> half < 4
    Traceback (most recent call last):
    ...
    labeltrace.errors.LayoutError: whether B // 2 < 4 is known at run time alone
    """

    values: Values
    smallest: int = field(default=2, compare=False)
    largest: float = field(default=inf, compare=False)

    # Arithmetic.

    def __add__(self, other: Size) -> Size:
        return _combined(self, other, lambda a, b: a + b)

    def __mul__(self, other: Size) -> Size:
        return _combined(self, other, lambda a, b: a * b)

    def __sub__(self, other: Size) -> Size:
        return _combined(self, other, lambda a, b: a - b)

    def __rsub__(self, other: Size) -> Size:
        return _combined(self, other, lambda a, b: b - a)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Size:
        return 0 - self

    def __floordiv__(self, other: Size) -> Size:
        if isinstance(other, int):
            return _divided_by_number(self, other)
        return _quotient(self, other)

    def __rfloordiv__(self, other: int) -> Size:
        return _quotient(other, self)

    def __mod__(self, other: Size) -> Size:
        return self - self // other * other

    def __rmod__(self, other: int) -> Size:
        return other - other // self * self

    def __divmod__(self, other: Size) -> tuple[Size, Size]:
        return self // other, self % other

    def __rdivmod__(self, other: int) -> tuple[Size, Size]:
        return other // self, other % self

    # Comparison.

    def __lt__(self, other: Size) -> bool:
        return _decided(self, "<", other, lambda lower, upper: (upper < 0, lower >= 0))

    def __le__(self, other: Size) -> bool:
        return _decided(self, "<=", other, lambda lower, upper: (upper <= 0, lower > 0))

    def __gt__(self, other: Size) -> bool:
        return _decided(self, ">", other, lambda lower, upper: (lower > 0, upper <= 0))

    def __ge__(self, other: Size) -> bool:
        return _decided(self, ">=", other, lambda lower, upper: (lower >= 0, upper < 0))

    def __bool__(self) -> bool:
        """Whether it differs from zero."""
        return _decided(self, "!=", 0, lambda lower, upper: (lower > 0 or upper < 0, False))

    # Values.

    @property
    def bounds(self) -> Bounds:
        """Numbers that no value goes beyond."""
        found = [
            value.bounds({QUOTIENT: span})
            for value, span in zip(self.values, self._quotients(), strict=True)
            if value is not None and span[0] <= span[1]
        ]
        return min(lower for lower, _ in found), max(upper for _, upper in found)

    @property
    def is_of_batch(self) -> bool:
        """Whether the size depends on the size of the batch alone."""
        return all(value is None or value.variables <= {QUOTIENT} for value in self.values)

    def at(self, batch: int) -> int:
        """The size for one size of the batch.

        Raises:
            LayoutError: no batch has this size, or the size depends on more than the batch.
        """
        quotient, remainder = divmod(batch, len(self.values))
        value = self.values[remainder]
        if value is None or not self.is_of_batch:
            raise LayoutError(f"{self} has no value for a batch of {batch}")
        return value.at({QUOTIENT: quotient})

    @property
    def written(self) -> WrittenSize:
        """The size as an expression in `B`."""
        return written(self.values, QUOTIENT)

    def __str__(self) -> str:
        return str(self.written)

    __repr__ = __str__

    def _quotients(self) -> Iterator[Bounds]:
        """The bounds of `B // m` for each remainder."""
        modulus = len(self.values)
        for remainder in range(modulus):
            lower = ceil((self.smallest - remainder) / modulus)
            upper = (self.largest - remainder) / modulus
            yield max(lower, 0), upper if upper == inf else floor(upper)


Size = int | BatchSize
"""A size: an integer, or one that depends on the size of the batch."""


def batch_size(
    smallest: int = 2, largest: float = inf, *, step: int = 1, remainder: int = 0
) -> BatchSize:
    """The size of a batch that is between two bounds and leaves a remainder when divided by `step`.

    >>> even = batch_size(step=2)
    >>> even // 2 * 2 == even, BATCH // 2 * 2 == BATCH
    (True, False)
    """
    values = tuple(
        Polynomial.of({(QUOTIENT,): step, (): rest}) if rest == remainder else None
        for rest in range(step)
    )
    return BatchSize(values, smallest, largest)


def unknown_size(name: str) -> BatchSize:
    """A size that is known at run time alone, and that is not negative."""
    return BatchSize((Polynomial.variable(name),))


def fixed_size(size: Size) -> int:
    """A size as an integer.

    Raises:
        LayoutError: it depends on the batch.
    """
    if isinstance(size, BatchSize):
        raise LayoutError(f"a size of {size} depends on the batch, where it has to be a number")
    return size


BATCH: Final = batch_size()
"""The size of a batch of two samples or more."""


def divides(divisor: Size, size: Size) -> bool:
    """Whether a size is a multiple of another one for every batch size.

    >>> divides(2, BATCH), divides(2, 6 * BATCH), divides(BATCH, 6 * BATCH), divides(BATCH, 6)
    (False, True, True, False)
    """
    if isinstance(divisor, int) and isinstance(size, int):
        return divisor != 0 and size % divisor == 0
    one, other = _aligned(divisor, size)
    return all(
        a is None or b is None or (bool(a.terms) and b.divided(a) is not None)
        for a, b in zip(one.values, other.values, strict=True)
    )


def growth(size: Size) -> tuple[object, ...]:
    """A key that sorts sizes as they are for a large batch; divisors come before multiples."""
    values = _as_batch_size(size).values
    first = next(value for value in values if value is not None)
    powers = {name: len(values) ** name.count(QUOTIENT) for name, _ in first.terms}
    shares = [(len(name), name, Fraction(factor, powers[name])) for name, factor in first.terms]
    return tuple(sorted(shares, reverse=True))


# Normal form. -------------------------------------------------------------------------------------


def _as_batch_size(size: Size) -> BatchSize:
    return BatchSize((Polynomial.constant(size),), 0) if isinstance(size, int) else size


def _aligned(one: Size, other: Size) -> tuple[BatchSize, BatchSize]:
    """Both with as many remainders, and for the batch sizes that both allow."""
    first, second = _as_batch_size(one), _as_batch_size(other)
    modulus = lcm(len(first.values), len(second.values))
    smallest = max(first.smallest, second.smallest)
    largest = min(first.largest, second.largest)
    return (
        BatchSize(refined(first.values, modulus), smallest, largest),
        BatchSize(refined(second.values, modulus), smallest, largest),
    )


def _normal(values: Values, smallest: int, largest: float) -> Size:
    """The size with these polynomials, for the smallest modulus; an integer if it is constant."""
    kept = {value for value in values if value is not None}
    if len(kept) == 1:
        (only,) = kept
        if only.is_constant:
            return only.constant_term
    return BatchSize(simplified(values), smallest, largest)


def _combined(
    one: Size, other: Size, operation: Callable[[Polynomial, Polynomial], Polynomial]
) -> Size:
    if not isinstance(other, (int, BatchSize)):
        return NotImplemented
    first, second = _aligned(one, other)
    values = tuple(
        None if a is None or b is None else operation(a, b)
        for a, b in zip(first.values, second.values, strict=True)
    )
    return _normal(values, first.smallest, first.largest)


# Division and comparison. -------------------------------------------------------------------------


def _divided_by_number(size: BatchSize, number: int) -> Size:
    """Rounded down. A remainder of other unknown sizes gives a new unknown size."""
    factors = [
        factor
        for value in size.values
        if value is not None
        for name, factor in value.terms
        if QUOTIENT in name
    ]
    modulus = len(size.values) * (abs(number) // gcd(number, *factors))
    if number == 0 or modulus > _LARGEST_MODULUS:
        raise LayoutError(f"{size} cannot be divided by {number}")
    finer = refined(size.values, modulus)
    values = [value and value.divided_by_number(number) for value in finer]
    if any(value is None and old is not None for value, old in zip(values, finer, strict=True)):
        return unknown_size(f"({size}) // {number}")
    return _normal(tuple(values), size.smallest, size.largest)


def _quotient(one: Size, other: BatchSize) -> Size:
    """The quotient, rounded down: exact, or the same number for every batch size."""
    first, second = _aligned(one, other)
    allowed = [
        r for r, (a, b) in enumerate(zip(first.values, second.values, strict=True)) if a and b
    ]
    found = {r: _exact_quotient(first.values[r], second.values[r]) for r in allowed}
    if all(value is not None for value in found.values()):
        whole = tuple(found.get(r) for r in range(len(first.values)))
        return _normal(whole, first.smallest, first.largest)
    for number in _candidates(first, second):
        rest = one - number * other
        lower, _ = _as_batch_size(rest).bounds
        _, below = _as_batch_size(rest - other).bounds
        if lower >= 0 and below < 0:
            return number
    raise LayoutError(f"how often {other} goes into {one} is known at run time alone")


def _exact_quotient(one: Polynomial | None, other: Polynomial | None) -> Polynomial | None:
    """The quotient of two polynomials; None where one does not divide the other."""
    return one.divided(other) if one and other and other.terms else None


def _candidates(one: BatchSize, other: BatchSize) -> Iterator[int]:
    """Numbers that the quotient of two sizes may be."""
    yield from (0, -1)
    for a, b in zip(one.values, other.values, strict=True):
        if a is None or b is None or not a.terms or not b.terms:
            continue
        top, factor = a.terms[-1]
        if top == b.terms[-1][0]:
            number = factor // b.terms[-1][1]
            yield from (number, number - 1)


def _decided(
    one: BatchSize,
    sign: str,
    other: Size,
    outcomes: Callable[[float, float], tuple[bool, bool]],
) -> bool:
    """The outcome of a comparison; `outcomes` says of the difference's bounds: surely, never."""
    surely, never = outcomes(*_as_batch_size(one - other).bounds)
    if surely or never:
        return surely
    raise LayoutError(f"whether {one} {sign} {other} is known at run time alone")
