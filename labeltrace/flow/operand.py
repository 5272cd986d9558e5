"""Operands: the tensor arguments of a call, as a rule sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from labeltrace.flow.label_field import LabelField
from labeltrace.flow.origin import Origin
from labeltrace.flow.tensor_source import TensorSource
from labeltrace.flow.value_facts import NOTHING_KNOWN, ValueFacts
from labeltrace.layout import Layout, Size

if TYPE_CHECKING:  # both hold operands
    from labeltrace.flow.key_value_product import KeyValueProduct
    from labeltrace.flow.product_operands import ProductOperands


@dataclass(frozen=True, slots=True)
class Operand:
    """One tensor argument of a call, as a rule sees it.

    Attributes:
        path: its place among the call's arguments: the schema's name, then indices into lists.
        shape: its shape.
        layout: the layout of its axes; None for constants.
        field: its label field. Operands with equal fields and layouts have equal labels. A traced
            operand without a field is mixing weights.
        tensor: where the label graph reads its values; rules do not look inside.
        facts: what is known of its values.
        values: where its own values are read: `tensor` may be weights as they were before dropout.
        strides: its strides, empty where they are not known.
        dtype: its type, None where it is not known.
        size_is_known: whether none of its sizes depends on the values of tensors.
    """

    path: tuple[str | int, ...]
    shape: tuple[Size, ...]
    layout: Layout | None = None
    field: LabelField | None = None
    tensor: TensorSource | None = None
    facts: ValueFacts = NOTHING_KNOWN
    values: TensorSource | None = None
    strides: tuple[int, ...] = ()
    dtype: torch.dtype | None = None
    size_is_known: bool = True

    @property
    def traced(self) -> bool:
        return self.layout is not None

    @property
    def labeled(self) -> bool:
        return self.field is not None

    @property
    def is_weights(self) -> bool:
        return self.traced and not self.labeled

    @property
    def is_gate(self) -> bool:
        """Whether it is a gate in products; see `labeltrace.flow.ValueFacts`."""
        return self.facts.is_gate

    @property
    def lower_bound(self) -> float:
        """A number below which no value lies."""
        return self.facts.lower_bound

    @property
    def nonnegative(self) -> bool:
        """Whether no value is known to be below zero."""
        return self.lower_bound >= 0

    @property
    def holds_key_features(self) -> bool:
        """Whether some positions are features of keys; see `labeltrace.flow.ValueFacts`."""
        return self.facts.holds_key_features

    @property
    def key_value_product(self) -> KeyValueProduct | None:
        """What the operand was made of, if it is keys times values, summed over positions."""
        return self.facts.key_value_product

    @property
    def product(self) -> ProductOperands | None:
        """The operands of the product that it is, if it is one."""
        return self.facts.product

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The tensors of which it is a point-wise function or a statistic."""
        return self.facts.origins

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
        """The argument as a person writes it, `tensors[2]`."""
        first, *rest = self.path
        return str(first) + "".join(f"[{index}]" for index in rest)
