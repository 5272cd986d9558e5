"""A polynomial for each remainder of the batch size: the values of a size that depends on it."""

from __future__ import annotations

from typing import Final

from labeltrace.layout.polynomial import Polynomial

QUOTIENT: Final = "B // m"
"""The variable of the polynomials: the size of the batch, divided by the modulus."""

Values = tuple[Polynomial | None, ...]
"""The polynomial for each remainder by the modulus; None for one that no batch size has."""


def refined(values: Values, modulus: int) -> Values:
    """The polynomials for a multiple of the modulus."""
    old = len(values)
    if old == modulus:
        return values
    return tuple(_with_quotient(values[r % old], modulus // old, r // old) for r in range(modulus))


def _with_quotient(value: Polynomial | None, factor: int, offset: int) -> Polynomial | None:
    """A polynomial with `factor * q + offset` in place of q."""
    if value is None:
        return None
    return value.substituted(QUOTIENT, Polynomial.of({(QUOTIENT,): factor, (): offset}))


def simplified(values: Values) -> Values:
    """The same size for the smallest modulus."""
    modulus = len(values)
    for smaller in range(1, modulus):
        if modulus % smaller == 0 and (found := _coarsened(values, smaller)) is not None:
            return found
    return values


def _coarsened(values: Values, modulus: int) -> Values | None:
    """The polynomials for a divisor of the modulus; None where one cannot serve several."""
    factor = len(values) // modulus
    first = tuple(_stretched(value, factor) for value in values[:modulus])
    return first if refined(first, len(values)) == values else None


def _stretched(value: Polynomial | None, factor: int) -> Polynomial | None:
    """A polynomial with `q / factor` in place of q; itself if that has no integer coefficients."""
    if value is None:
        return None
    powers = {name: factor ** name.count(QUOTIENT) for name, _ in value.terms}
    if any(number % powers[name] for name, number in value.terms):
        return value
    return Polynomial.of({name: number // powers[name] for name, number in value.terms})
