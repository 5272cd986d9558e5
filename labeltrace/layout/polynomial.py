"""Polynomials with integer coefficients in named variables that are never negative."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, prod

Monomial = tuple[str, ...]
"""The variables of a product, sorted; a square names its variable twice."""

Bounds = tuple[float, float]
"""The smallest and the largest value, both included."""


@dataclass(frozen=True, slots=True)
class Polynomial:
    """A polynomial in its normal form: equal polynomials have equal terms.

    Attributes:
        terms: each monomial with its coefficient, which is not zero; sorted.

    >>> q = Polynomial.variable("q")
    >>> (q + Polynomial.constant(1)) * q
    Polynomial(terms=((('q',), 1), (('q', 'q'), 1)))
    """

    terms: tuple[tuple[Monomial, int], ...]

    @classmethod
    def of(cls, terms: Mapping[Monomial, int]) -> Polynomial:
        """The polynomial with these terms."""
        return cls(tuple(sorted((name, factor) for name, factor in terms.items() if factor)))

    @classmethod
    def constant(cls, number: int) -> Polynomial:
        """A number."""
        return cls.of({(): number})

    @classmethod
    def variable(cls, name: str) -> Polynomial:
        """A variable."""
        return cls.of({(name,): 1})

    @property
    def constant_term(self) -> int:
        """The coefficient without a variable."""
        return dict(self.terms).get((), 0)

    @property
    def is_constant(self) -> bool:
        """Whether it is a number."""
        return all(not name for name, _ in self.terms)

    @property
    def variables(self) -> frozenset[str]:
        """The names of its variables."""
        return frozenset(variable for name, _ in self.terms for variable in name)

    def __add__(self, other: Polynomial) -> Polynomial:
        terms = dict(self.terms)
        for name, factor in other.terms:
            terms[name] = terms.get(name, 0) + factor
        return Polynomial.of(terms)

    def __mul__(self, other: Polynomial) -> Polynomial:
        terms: dict[Monomial, int] = {}
        for name, factor in self.terms:
            for other_name, other_factor in other.terms:
                product = tuple(sorted((*name, *other_name)))
                terms[product] = terms.get(product, 0) + factor * other_factor
        return Polynomial.of(terms)

    def __neg__(self) -> Polynomial:
        return Polynomial(tuple((name, -factor) for name, factor in self.terms))

    def __sub__(self, other: Polynomial) -> Polynomial:
        return self + -other

    def divided(self, other: Polynomial) -> Polynomial | None:
        """The polynomial whose product with `other` is this one; None if there is none.

        >>> q, two = Polynomial.variable("q"), Polynomial.constant(2)
        >>> (two * q * q + two * q).divided(two * q)
        Polynomial(terms=(((), 1), (('q',), 1)))
        """
        rest, quotient = self, Polynomial(())
        lead, lead_factor = max(other.terms, key=_degree)
        while rest.terms:
            name, factor = max(rest.terms, key=_degree)
            missing = _without(name, lead)
            if missing is None or factor % lead_factor:
                return None
            step = Polynomial.of({missing: factor // lead_factor})
            quotient += step
            rest -= step * other
        return quotient

    def divided_by_number(self, number: int) -> Polynomial | None:
        """Each value divided and rounded down; None unless a constant alone leaves a remainder."""
        if any(factor % number for name, factor in self.terms if name):
            return None
        return Polynomial.of({name: factor // number for name, factor in self.terms})

    def substituted(self, name: str, value: Polynomial) -> Polynomial:
        """The polynomial with another one in place of a variable."""
        total = Polynomial(())
        for monomial, factor in self.terms:
            term = Polynomial.of({tuple(v for v in monomial if v != name): factor})
            for _ in range(monomial.count(name)):
                term *= value
            total += term
        return total

    def bounds(self, variables: Mapping[str, Bounds]) -> Bounds:
        """Numbers that no value goes beyond; exact for one variable in the first power.

        Args:
            variables: the bounds of its variables; one that is not named starts at zero.
        """
        shifted = self
        for variable in self.variables:
            start = Polynomial.constant(int(variables.get(variable, (0, inf))[0]))
            shifted = shifted.substituted(variable, Polynomial.variable(variable) + start)
        lower, upper = 0.0, 0.0
        for name, factor in shifted.terms:
            largest = _largest(name, variables) * factor
            lower += min(largest, 0) if name else factor
            upper += max(largest, 0) if name else factor
        return lower, upper

    def at(self, values: Mapping[str, int]) -> int:
        """The value for these values of the variables."""
        return sum(factor * prod(values[v] for v in name) for name, factor in self.terms)


def _largest(name: Iterable[str], variables: Mapping[str, Bounds]) -> float:
    """The largest value of a monomial whose variables are counted from their smallest values."""
    bounds = [variables.get(variable, (0.0, inf)) for variable in name]
    spans = [upper - lower for lower, upper in bounds]
    return 0.0 if 0 in spans else prod(spans)


def _degree(term: tuple[Monomial, int]) -> tuple[int, Monomial]:
    name, _ = term
    return len(name), name


def _without(name: Monomial, taken: Monomial) -> Monomial | None:
    """The variables of a product that are left when others are taken out of it."""
    left = list(name)
    for variable in taken:
        if variable not in left:
            return None
        left.remove(variable)
    return tuple(left)
