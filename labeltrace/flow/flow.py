"""Flows: how the label of one output comes about.

A flow is data: the operation of the paper's Table 10 that the step amounts to, the layout of the
output, and what the label graph has to compute (for most steps: nothing).
"""

from __future__ import annotations

from dataclasses import dataclass

from labeltrace.flow.operand import Operand, ProductOperands
from labeltrace.flow.operation import Operation
from labeltrace.layout import Arrangement, Layout


@dataclass(frozen=True, slots=True)
class LabelView:
    """The label field of one operand, with the dimensions that a step needs."""

    operand: Operand
    arrangement: Arrangement


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How the label of one output comes about; see the subclasses.

    ``is_gate`` sets whether the output is a gate; None means as its labelled input.
    No value of the output is below ``lower_bound``; None means as the input's, for steps that only move
    values, else that nothing is known.  ``holds_key_features``: see :class:`Operand`; None means as the
    inputs'.
    ``approximation`` is empty for an exact step, else the reason why it is not.
    ``as_weights`` is the same output read as mixing weights, or as keys times values: which of
    the two it is shows only at a later product.  ``product``: see :class:`Operand`.
    """

    operation: Operation
    layout: Layout | None
    is_gate: bool | None = None
    lower_bound: float | None = None
    holds_key_features: bool | None = None
    approximation: str = ""
    as_weights: Weights | None = None
    product: ProductOperands | None = None

    @property
    def labels(self) -> tuple[LabelView, ...]:
        """The label fields that the step reads."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(Flow):
    """The output does not come from the image."""

    operation: Operation = Operation.CONSTANT
    layout: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights(Flow):
    """The output is mixing weights: it has positions and no label.

    ``before_dropout`` names the operand whose values labels are to use instead of the output's: the
    probabilities before dropout.  ``key_value_product``: see :class:`Operand`.
    """

    layout: Layout
    operation: Operation = Operation.WEIGHTS
    before_dropout: Operand | None = None
    key_value_product: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry(Flow):
    """The output has the operand's label field, seen through another layout; nothing to do."""

    layout: Layout
    source: Operand


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelStep(Flow):
    """A flow whose label is computed: ``layout`` is over a fresh field.

    ``field_shape`` has the sizes of that field's dimensions where they are coarser than the layout's
    positions: neighbouring positions stand in one dimension.
    """

    layout: Layout
    field_shape: tuple[int, ...] | None = None

    @property
    def field_sizes(self) -> tuple[int, ...]:
        """The sizes of the computed field's dimensions, K left out."""
        return self.layout.field_sizes if self.field_shape is None else self.field_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class OneSourceStep(LabelStep):
    """A step that reads the labels of one operand."""

    source: LabelView

    @property
    def labels(self) -> tuple[LabelView, ...]:
        return (self.source,)
