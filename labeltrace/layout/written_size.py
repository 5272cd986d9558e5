"""Sizes written with `B`, the size of the batch, and `+ - * // %`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from labeltrace.layout.polynomial import Polynomial

BATCH_NAME: Final = "B"
"""The size of the batch."""


@dataclass(frozen=True, slots=True)
class Written:
    """Two parts and the sign between them; a part is a number, a name or written itself."""

    left: WrittenSize
    sign: str
    right: WrittenSize

    def __str__(self) -> str:
        return infix(_text(self.left), self.sign, _text(self.right))


WrittenSize = int | str | Written
"""A size as an expression."""


def infix(left: str, sign: str, right: str) -> str:
    """An expression as text; parts that are expressions have parentheses where they need them.

    >>> infix("B + 1", "//", "2"), infix("2*B", "+", "1")
    ('(B + 1) // 2', '2*B + 1')
    """
    spaced = sign != "*"
    if sign not in "+-":
        left, right = _bracketed(left, "+-/%"), _bracketed(right, "+-/%*")
    elif sign == "-":
        right = _bracketed(right, "+-")
    return f"{left} {sign} {right}" if spaced else f"{left}*{right}"


def _bracketed(text: str, signs: str) -> str:
    inside = text[1:]  # a leading minus belongs to a number
    return f"({text})" if any(sign in inside for sign in signs) else text


def _text(part: WrittenSize) -> str:
    return str(part)


def written(values: Sequence[Polynomial | None], quotient: str) -> WrittenSize:
    """A size, given by its polynomials in `quotient` for each remainder of B, as an expression."""
    others = {name for value in values if value for name in value.variables} - {quotient}
    if others or max(map(_power, values)) > 1:
        return _in_powers(values, quotient)
    return _as_one_quotient(values, quotient) or _in_powers(values, quotient)


def _power(value: Polynomial | None) -> int:
    return max((len(name) for name, _ in value.terms), default=0) if value else 0


def _as_one_quotient(values: Sequence[Polynomial | None], quotient: str) -> WrittenSize | None:
    """`k * ((a*B + c) // m)`, where a size has this form."""
    modulus = len(values)
    known = {r: dict(value.terms) for r, value in enumerate(values) if value is not None}
    slopes = {terms.get((quotient,), 0) for terms in known.values()}
    if len(slopes) > 1:
        return None
    (slope,) = slopes
    starts = {r: terms.get((), 0) for r, terms in known.items()}
    for factor in range(1, abs(slope) + 1):
        added = starts[min(starts)] % factor
        if slope % factor or any(start % factor != added for start in starts.values()):
            continue
        scaled = {r: start // factor for r, start in starts.items()}
        inner = _floor(scaled, slope // factor, modulus)
        if inner is not None:
            return _plus(_times(factor, inner), added)
    return None


def _floor(starts: Mapping[int, int], slope: int, modulus: int) -> WrittenSize | None:
    """`(a*B + c) // m` that is `slope * q + starts[r]` for each batch size `m * q + r`."""
    for divisor in (d for d in range(1, modulus + 1) if modulus % d == 0):
        if slope * divisor % modulus:
            continue
        factor = slope * divisor // modulus
        remainder = min(starts)
        first = divisor * starts[remainder] - factor * remainder
        for added in range(first, first + divisor):
            if all((factor * r + added) // divisor == start for r, start in starts.items()):
                inner = _plus(_times(factor, BATCH_NAME), added)
                return inner if divisor == 1 else Written(inner, "//", divisor)
    return None


def _in_powers(values: Sequence[Polynomial | None], quotient: str) -> WrittenSize:
    """A sum of monomials, whose coefficients may depend on the remainder of B."""
    modulus = len(values)
    batch: WrittenSize = BATCH_NAME if modulus == 1 else Written(BATCH_NAME, "//", modulus)
    terms = [None if value is None else dict(value.terms) for value in values]
    names = sorted({name for value in terms if value for name in value}, reverse=True)
    total: WrittenSize = 0
    for name in names:
        product: WrittenSize = _by_remainder([None if t is None else t.get(name, 0) for t in terms])
        for variable in name:
            product = _times(product, batch if variable == quotient else variable)
        total = product if total == 0 else _plus(total, product)
    return total


def _by_remainder(numbers: Sequence[int | None]) -> WrittenSize:
    """A number for each remainder of B: each step from one to the next where it is reached."""
    modulus = len(numbers)
    known = [(r, number) for r, number in enumerate(numbers) if number is not None]
    total: WrittenSize = known[0][1]
    rest = Written(BATCH_NAME, "%", modulus)
    if known == list(enumerate(range(modulus))):
        return rest
    for (_, before), (remainder, number) in itertools.pairwise(known):
        if number == before:
            continue
        reached = Written(Written(rest, "+", modulus - remainder), "//", modulus)
        total = _plus(total, _times(number - before, reached))
    return total


def _times(left: WrittenSize, right: WrittenSize) -> WrittenSize:
    if left == 1:
        return right
    return left if right == 1 else Written(left, "*", right)


def _plus(left: WrittenSize, right: WrittenSize) -> WrittenSize:
    if left == 0:
        return right
    if isinstance(right, int):
        if right == 0:
            return left
        return Written(left, "-", -right) if right < 0 else Written(left, "+", right)
    return Written(left, "+", right)
