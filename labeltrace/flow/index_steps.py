"""Steps that move labels by index tensors, which are read when the model runs.

The elements of a tensor are numbered, the operator's own indexing is applied to the numbers, and
the numbers say where each label comes from, or where it goes. That is exact for every operator that
only moves elements, whatever its axes are made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labeltrace.flow.flow import LabelStep, LabelView, OneSourceStep
from labeltrace.flow.operand import Operand
from labeltrace.flow.operation import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Elements:
    """How a field becomes the labels of a tensor's elements.

    Attributes:
        sizes: the sizes to which the field's dimensions are expanded: one for each factor of the
            tensor's axes. The field has size one along factors without positions.
        shape: the shape of the elements, made of these sizes. An axis along which all labels are
            equal and that no index touches has size one.
    """

    sizes: tuple[int, ...]
    shape: tuple[int, ...]


Indexing = tuple[str, tuple[Any, ...]]
"""An operator that picks elements of a tensor: its name, and its arguments after the tensor.

The name is one of `torch.ops.aten`, or `"view"`: the elements that two views of one memory share.
The arguments of that are the shape, strides and offset of the one, then those of the other.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reindex(OneSourceStep):
    """Elements picked from a tensor by an index that is known when the model runs.

    Attributes:
        elements: the elements of the tensor; the labels have a dimension for each factor.
        operator: the name of the operator; see `Indexing`.
        arguments: its arguments.
        ordered: the tensor whose order decides: `operator` returns its values and their indices.
            None where an index tensor decides.
        order_axis: the axis of that order, and whether the operator's result has it.
        rank: how many axes the result has.
        result: the sizes of the factors of the result.
        kept: which of them are dimensions of the new field; labels are averaged over the others.
    """

    elements: Elements
    operator: str
    arguments: tuple[Any, ...]
    ordered: Operand | None = None
    order_axis: tuple[int, bool] = (0, True)
    rank: int
    result: tuple[int, ...]
    kept: tuple[int, ...]
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Write(LabelStep):
    """Elements written to, or added to, a part of a tensor.

    Attributes:
        pieces: the labels of the tensor that is written to, then those of each source; None for a
            constant. Written elements have the label of their source. A constant carries the prior
            where it holds a position alone, and nothing where it is one of several channels.
        elements: the elements of each piece.
        places: the elements of the first piece that each source is written to.
        adds: for each source whether it is added: then an element has the mean label of all that
            lands on it, and constants count for nothing. Else it is written over.
        keeps: for each source, if it is added, whether what was there before counts as well.
        result: the sizes of the factors of the result.
        kept: which of them are dimensions of the new field; labels are averaged over the others.
        batch: the dimension of the new field that is the batch; None where there is none.
    """

    pieces: tuple[LabelView | None, ...]
    elements: tuple[Elements, ...]
    places: tuple[Indexing, ...]
    adds: tuple[bool, ...]
    keeps: tuple[bool, ...]
    result: tuple[int, ...]
    kept: tuple[int, ...]
    batch: int | None
    operation: Operation = Operation.RELAYOUT

    @property
    def labels(self) -> tuple[LabelView, ...]:
        return tuple(piece for piece in self.pieces if piece is not None)
