"""Facts: what tracing knows of a tensor's values, and what each kind of step leaves of that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Final

from labeltrace.flow.origin import Origin

if TYPE_CHECKING:  # both hold operands, and operands hold facts
    from labeltrace.flow.key_value_product import KeyValueProduct
    from labeltrace.flow.product_operands import ProductOperands


@dataclass(frozen=True, slots=True)
class ValueFacts:
    """What is known of the values of one tensor; by default nothing.

    The methods say what is known after a step. A rule names the step; it does not copy facts by
    hand, so that a new fact is added in this file alone.

    Attributes:
        is_gate: whether the last non-linear step was a sigmoid, softmax, tanh or the like. That
            makes the tensor a gate in products (contract, point 8). Mixing weights are no gates.
        lower_bound: a number below which no value lies.
        holds_key_features: whether some positions are features of keys, gathered over the tokens
            for queries to choose from.
        key_value_product: for mixing weights that are keys times values, summed over positions:
            what they were made of. See `labeltrace.rule_helpers.linear_attention`.
        product: for a product of two tensors: its operands. See
            `labeltrace.rule_helpers.weighted_sum`.
        origins: the tensors of which it is a point-wise function or a statistic. See
            `labeltrace.rule_helpers.own_statistics`.
        is_uniform: whether it is a constant with one value at all indices.
    """

    is_gate: bool = False
    lower_bound: float = -inf
    holds_key_features: bool = False
    key_value_product: KeyValueProduct | None = None
    product: ProductOperands | None = None
    origins: tuple[Origin, ...] = ()
    is_uniform: bool = False

    # Steps on one tensor.

    def moved(self) -> ValueFacts:
        """After a step that only moves values: a view, a permutation, a slice."""
        return self.with_product(self.product and self.product.after_other_step())

    def after_linear(self) -> ValueFacts:
        """After any other step that counts as linear: a projection, a normalization layer."""
        return self.moved().with_lower_bound(-inf)

    def after_nonlinear(self, *, is_gate: bool, lower_bound: float = -inf) -> ValueFacts:
        """After a non-linear function: what it says of its values, and nothing from before."""
        origins = tuple(replace(origin, negative=False) for origin in self.origins)
        return ValueFacts(is_gate=is_gate, lower_bound=lower_bound, origins=origins)

    def negated(self) -> ValueFacts:
        """After a change of sign, of which the bound is not told here."""
        origins = (replace(origin, negative=not origin.negative) for origin in self.origins)
        return self.with_origins(origins)

    # Steps on several tensors, or on several positions of one.

    @classmethod
    def joined(cls, parts: Iterable[ValueFacts]) -> ValueFacts:
        """After a step that puts values next to one another: a concatenation."""
        known = tuple(parts)
        return cls(
            is_gate=all(facts.is_gate for facts in known),
            lower_bound=min((facts.lower_bound for facts in known), default=-inf),
            holds_key_features=any(facts.holds_key_features for facts in known),
            product=_first_product(known),
        )

    @classmethod
    def mixed(cls, parts: Iterable[ValueFacts]) -> ValueFacts:
        """After a step that computes new values from several: a sum, a mean, mixing."""
        return replace(cls.joined(parts), lower_bound=-inf, product=None)

    @classmethod
    def combined_weights(cls, parts: Iterable[ValueFacts]) -> ValueFacts:
        """After a sum or product of mixing weights with others: the first product among them."""
        return cls(product=_first_product(parts))

    # What a rule knows better.

    def with_gate(self, is_gate: bool) -> ValueFacts:
        """The same facts of values that are a gate, or are none."""
        return replace(self, is_gate=is_gate)

    def with_lower_bound(self, lower_bound: float) -> ValueFacts:
        """The same facts of values with another lower bound."""
        return replace(self, lower_bound=lower_bound)

    def with_key_features(self, held: bool) -> ValueFacts:
        """The same facts of values that hold features of keys, or do not."""
        return replace(self, holds_key_features=held)

    def with_product(self, product: ProductOperands | None) -> ValueFacts:
        """The same facts of values that are this product."""
        return replace(self, product=product)

    def with_origins(self, origins: Iterable[Origin]) -> ValueFacts:
        """The same facts of values with these origins."""
        return replace(self, origins=tuple(origins))


NOTHING_KNOWN: Final = ValueFacts()


def _first_product(parts: Iterable[ValueFacts]) -> ProductOperands | None:
    """The first product, after a step on it; None where there is none."""
    found = (facts.product for facts in parts if facts.product is not None)
    return next((product.after_other_step() for product in found), None)
