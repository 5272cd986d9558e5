"""Operands: the tensor arguments of a call, as a rule sees them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf

from labeltrace.layout import Layout


@dataclass(frozen=True, slots=True)
class Operand:
    """One tensor argument of a call, as a rule sees it.

    ``path`` locates it among the call's arguments: the schema's name, then indices into lists.
    ``layout`` is None for constants.  ``field`` stands for the operand's label field: operands with
    equal fields and layouts have equal labels; a traced operand without one is mixing weights.
    ``tensor`` stands for its values, which rules never see.
    ``is_gate`` says that its last non-linear step was a sigmoid, softmax, tanh or the like, which
    makes it a gate in products; no value is below ``lower_bound``; ``holds_key_features`` says that some of its
    positions are features of keys, gathered over the tokens for queries to choose from.
    ``pending`` weights are keys times values, summed over positions: see
    :mod:`labeltrace.rule_helpers.linear_attention`.  ``product``: of a product, see :class:`Factors`.
    """

    path: tuple[str | int, ...]
    shape: tuple[int, ...]
    layout: Layout | None = None
    field: object = None
    tensor: object = None
    is_gate: bool = False
    lower_bound: float = -inf
    holds_key_features: bool = False
    key_value_product: object = None
    product: ProductOperands | None = None

    @property
    def traced(self) -> bool:
        return self.layout is not None

    @property
    def labelled(self) -> bool:
        return self.field is not None

    @property
    def is_weights(self) -> bool:
        return self.traced and not self.labelled

    @property
    def nonnegative(self) -> bool:
        """Whether no value is known to be below zero."""
        return self.lower_bound >= 0

    @property
    def traced_layout(self) -> Layout:
        """The layout of a traced operand.

        Raises:
            TypeError: the operand is a constant, which has none (a fault of the rule).
        """
        if self.layout is None:
            raise TypeError(f"argument {self.name} is a constant and has no layout")
        return self.layout

    @property
    def name(self) -> str:
        """The argument as a person writes it, ``tensors[2]``."""
        first, *rest = self.path
        return str(first) + "".join(f"[{index}]" for index in rest)


@dataclass(frozen=True, slots=True)
class ProductOperands:
    """The two operands of a product: streams, or one and its weights (:mod:`labeltrace.rule_helpers.weighted_sum`).

    ``axes_unchanged`` says that the product's axes are theirs still, so that a sum over positions can mix.
    """

    first: Operand
    second: Operand
    axes_unchanged: bool = True

    def after_other_step(self) -> ProductOperands:
        """The factors after a step on their product."""
        return replace(self, axes_unchanged=False)


def product_after_other_step(operands: Iterable[Operand]) -> ProductOperands | None:
    """The factors of the first product among operands, after a step on them; None without one."""
    return next(
        (one.product.after_other_step() for one in operands if one.product is not None), None
    )
