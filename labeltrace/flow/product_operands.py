"""The operands of a product, kept until a later sum shows what the product is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from labeltrace.flow.operand import Operand


@dataclass(frozen=True, slots=True)
class ProductOperands:
    """The two operands of a product: streams, or a stream and its weights.

    `axes_unchanged` says that the tensor still has the product's axes, so that a sum over positions
    can mix. See `labeltrace.rule_helpers.weighted_sum`.
    """

    first: Operand
    second: Operand
    axes_unchanged: bool = True

    def after_other_step(self) -> ProductOperands:
        """The operands after a step on their product."""
        return replace(self, axes_unchanged=False)
