"""Flows: how the label of one output comes about.

A flow is data: the operation of the paper's Table 10 that the step amounts to, the layout of the
output, and what the label graph has to compute (for most steps: nothing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from math import prod
from types import MappingProxyType
from typing import Final

from labeltrace.flow.contracted_streams import ContractedStreams
from labeltrace.flow.label_field import LabelField
from labeltrace.flow.operand import Operand
from labeltrace.flow.operation import Operation
from labeltrace.flow.value_facts import NOTHING_KNOWN, ValueFacts
from labeltrace.layout import Arrangement, Layout, Size

NOT_IN_IDENTITY: Final[Mapping[str, bool]] = MappingProxyType({"in_identity": False})
"""Metadata of a field that does not change the labels; see `LabelStep.identity`.

It holds for subclasses too, also where these declare the field again with another default.
"""


@dataclass(frozen=True, slots=True)
class LabelView:
    """The label field of one operand, with the dimensions that a step needs."""

    operand: Operand
    arrangement: Arrangement

    @property
    def field(self) -> LabelField:
        """The field that is read: a step reads labels, so its operand has one."""
        assert self.operand.field is not None
        return self.operand.field

    @property
    def identity(self) -> tuple[LabelField | None, Arrangement]:
        """What is read: views with equal identities are equal labels."""
        return (self.operand.field, self.arrangement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How the label of one output comes about; see the subclasses.

    Attributes:
        operation: the operation of the paper's Table 10.
        layout: the layout of the output; None for constants.
        facts: what the rule knows of the output's values. None means what the step leaves of the
            facts of the operands whose labels it reads: see `output_facts`.
        approximation: why the step is not exact; empty for an exact one.
        as_weights: the same output read as mixing weights, or as keys times values. Which of the
            two it is shows only at a later product.
    """

    operation: Operation = field(metadata=NOT_IN_IDENTITY)
    layout: Layout | None
    facts: ValueFacts | None = field(default=None, metadata=NOT_IN_IDENTITY)
    approximation: str = field(default="", metadata=NOT_IN_IDENTITY)
    as_weights: Weights | None = field(default=None, metadata=NOT_IN_IDENTITY)

    @property
    def output_facts(self) -> ValueFacts:
        """What is known of the output's values.

        `facts` if the rule gave them. Else a carried label and a step follow the operands whose
        labels they read, and nothing is known of constants and weights.
        """
        if self.facts is not None:
            return self.facts
        only_moves = self.operation is Operation.RELAYOUT
        match self:
            case Carry(source=source):
                facts = source.facts.moved() if only_moves else source.facts.after_linear()
                return facts if self._keeps_origins else facts.with_origins(())
            case LabelStep():
                read = [labels.operand.facts for labels in self.labels]
                return ValueFacts.joined(read) if only_moves else ValueFacts.mixed(read)
        return NOTHING_KNOWN

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

    `before_dropout` names the operand whose values labels are to use instead of the output's: the
    probabilities before dropout. `contracted` has the streams that they were computed from, where
    these are the operands of this very call.
    """

    layout: Layout
    operation: Operation = Operation.WEIGHTS
    before_dropout: Operand | None = None
    contracted: ContractedStreams | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry(Flow):
    """The output has the operand's label field, seen through another layout; nothing to do.

    `is_linear` says that no non-linear function was applied: then the output may be read as mixing
    weights wherever the operand may.
    """

    layout: Layout
    source: Operand
    is_linear: bool = True

    @property
    def _keeps_origins(self) -> bool:
        """Whether the output is a point-wise function of the operand, or all its values moved."""
        if self.operation is Operation.RELAYOUT:
            return prod(self.layout.shape) == prod(self.source.shape)
        return self.operation is Operation.POINTWISE


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelStep(Flow):
    """A flow whose label is computed: `layout` is over a fresh field.

    `field_shape` has the sizes of that field's dimensions where they are coarser than the layout's
    positions: neighboring positions stand in one dimension.
    """

    layout: Layout
    field_shape: tuple[Size, ...] | None = None

    @property
    def field_sizes(self) -> tuple[Size, ...]:
        """The sizes of the computed field's dimensions, K left out."""
        return self.layout.field_sizes if self.field_shape is None else self.field_shape

    def identity(self) -> tuple[object, ...]:
        """What the step computes: steps with equal identities give equal labels.

        All fields count but those that are declared with `NOT_IN_IDENTITY`. A label view counts by
        field and arrangement, another operand by the tensor that is read.
        """
        values = (getattr(self, name) for name in _names_in_identity(type(self)))
        return (type(self), *map(_identity_part, values))


@dataclass(frozen=True, slots=True, kw_only=True)
class OneSourceStep(LabelStep):
    """A step that reads the labels of one operand."""

    source: LabelView

    @property
    def labels(self) -> tuple[LabelView, ...]:
        return (self.source,)


def _names_in_identity(kind: type[LabelStep]) -> tuple[str, ...]:
    declared = [part for base in kind.__mro__ if is_dataclass(base) for part in fields(base)]
    left_out = {part.name for part in declared if not part.metadata.get("in_identity", True)}
    return tuple(part.name for part in fields(kind) if part.name not in left_out)


def _identity_part(value: object) -> object:
    match value:
        case LabelView():
            return value.identity
        case Operand():
            return value.tensor
        case LabelStep():
            return value.identity()
        case tuple():
            return tuple(map(_identity_part, value))
    return value
