"""A tensor, a part of which is written over or added to, at places that are known at run time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from labeltrace.errors import LayoutError
from labeltrace.flow import (
    Constant,
    Elements,
    Flow,
    LabelView,
    Operand,
    Operation,
    Weights,
    Write,
)
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    axis_size,
    has_channels,
    has_positions,
    is_dynamic,
    renumbered,
)
from labeltrace.rule_api.call import Call
from labeltrace.rule_helpers.elementwise import carry
from labeltrace.rule_helpers.picked_elements import (
    axis_after_index,
    element_labels,
    factor_sizes,
    index_arguments,
    index_places,
    kept_factors,
)

_CONSTANT = Elements(sizes=(), shape=())
"""The elements of a constant that is written somewhere: one for all."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a tensor, and what is written to it.

    Attributes:
        base: the tensor.
        source: what is written, an operand or a number.
        operator: the operator that would pick the part; see `labeltrace.flow.Indexing`.
        arguments: its arguments after the tensor.
        places: for each axis of the part which axis of the tensor it is, None for a new one; the
            source has these axes, or the last ones of them. None where the part has one axis of
            single elements.
        touched: the axes of the tensor that the operator touches; None for all of them.
    """

    base: Operand
    source: Any
    operator: str
    arguments: tuple[Any, ...]
    places: Sequence[int | None] | None
    touched: Collection[int] | None = None

    @classmethod
    def of_index(cls, base: Operand, indices: Sequence[Operand | None], source: Any) -> Part:
        """The part `base[indices]`."""
        places = index_places(len(base.shape), indices)
        touched = {dim for dim in range(len(base.shape)) if dim not in places}
        return cls(base, source, "index", (tuple(indices),), places, touched)

    @property
    def written(self) -> Operand | None:
        """The source, if it carries labels."""
        labeled = isinstance(self.source, Operand) and self.source.labeled
        return self.source if labeled else None

    def source_axis(self, dim: int) -> int | None:
        """Which axis of the source lies along an axis of the tensor; None if none does."""
        if self.places is None or dim not in self.places:
            return None
        axis = list(self.places).index(dim) - (len(self.places) - len(self.source.shape))
        return axis if axis >= 0 else None


def overwritten(part: Part, call: Call) -> Flow:
    """The flow of a tensor after a part of it was written over."""
    return _flow(part, call, adds=False, keeps_base=False)


def added(part: Part, call: Call, keeps_base: bool = True, approximation: str = "") -> Flow:
    """The flow of a tensor after something was added to a part of it.

    `keeps_base` says whether what was there before counts as well.
    """
    flow = _flow(part, call, adds=True, keeps_base=keeps_base)
    return replace(flow, approximation=approximation) if isinstance(flow, Write) else flow


def _flow(part: Part, call: Call, *, adds: bool, keeps_base: bool) -> Flow:
    base, source = part.base, part.written
    if not all(operand.size_is_known for operand in call.operands):
        raise LayoutError(
            "how much is written depends on the values of tensors, which a captured graph does not "
            'know; align(model, engine="recorded") follows the model as it runs'
        )
    if base.is_weights:
        return Weights(layout=renumbered(base.traced_layout.axes))
    if isinstance(part.source, Operand) and part.source.is_weights:
        if base.labeled:
            raise LayoutError(f"{call.operator} puts scores among content; keep the two apart")
        return Weights(layout=renumbered(_axes_from_source(part, part.source, call.batch)))
    if source is None and (adds or not base.labeled):
        return carry(base, base.shape) if base.labeled else Constant()
    touched = set(range(len(base.shape)) if part.touched is None else part.touched)
    if base.labeled:
        axes = list(base.traced_layout.axes)
        touched |= _written_across(part, axes)
        view, elements = element_labels(base, touched)
        views: list[LabelView | None] = [view]
        axes = [
            axis_after_index(axis, axis_size(axis)) if dim in touched else axis
            for dim, axis in enumerate(axes)
        ]
    else:
        assert source is not None
        axes = _axes_from_source(part, source, call.batch)
        elements, views = elements_of_constant(axes, touched), [None]
    written = _CONSTANT
    views.append(None)
    if source is not None:
        views[1], written = element_labels(source, _whole_axes(part, source, axes, touched))
    layout = renumbered(axes)
    return Write(
        operation=Operation.SPATIAL_AGGREGATION if adds else Operation.RELAYOUT,
        layout=layout,
        pieces=tuple(views),
        elements=(elements, written),
        places=((part.operator, index_arguments(part.arguments)),),
        adds=(adds,),
        keeps=(keeps_base,),
        result=factor_sizes(axes, touched),
        kept=kept_factors(axes),
        batch=batch_dimension(axes),
    )


def joined_elements(pieces: Sequence[Operand], dim: int, output: Sequence[int]) -> Flow:
    """The flow of pieces along an axis in which some have both positions and others.

    Each element of the axis becomes a position. (4 position * 3 channel) and (5 position * 3
    channel) give 27 positions. Constants carry the prior.
    """
    labeled = [piece for piece in pieces if piece.labeled]
    first, *others = [piece.traced_layout.axes for piece in labeled]
    touched = {
        axis
        for axis in range(len(output))
        if axis == dim
        or any(_positions_of(other[axis]) != _positions_of(first[axis]) for other in others)
    }
    axes = [
        axis_after_index(axis, output[place]) if place in touched - {dim} else axis
        for place, axis in enumerate(first)
    ]
    axes[dim] = (Factor(output[dim], Kind.POSITION),)
    views: list[LabelView | None] = [None]
    elements = [elements_of_constant(axes, touched)]
    places = []
    start = 0
    for piece in pieces:
        view, own = element_labels(piece, touched) if piece.labeled else (None, _CONSTANT)
        views.append(view)
        elements.append(own)
        places.append(("slice", (dim, start, start + piece.shape[dim])))
        start += piece.shape[dim]
    if is_dynamic(start):
        raise LayoutError("samples that share an axis with channels are joined; stack them instead")
    return Write(
        layout=renumbered(axes),
        pieces=tuple(views),
        elements=tuple(elements),
        places=tuple(places),
        adds=(False,) * len(places),
        keeps=(False,) * len(places),
        result=factor_sizes(axes, touched),
        kept=kept_factors(axes),
        batch=batch_dimension(axes),
    )


def elements_of_constant(axes: Sequence[Axis], whole: Collection[int]) -> Elements:
    """The elements of a constant whose axes are to be as given."""
    shape = tuple(
        axis_size(tuple(f for f in axis if f.is_position or dim in whole))
        for dim, axis in enumerate(axes)
    )
    return Elements(sizes=shape, shape=shape)


def batch_dimension(axes: Sequence[Axis]) -> int | None:
    """Which dimension of a field with these axes is the batch."""
    varying = [factor for axis in axes for factor in axis if factor.is_position]
    kinds = [factor.kind for factor in varying]
    return kinds.index(Kind.BATCH) if Kind.BATCH in kinds else None


def _written_across(part: Part, axes: Sequence[Axis]) -> set[int]:
    """The axes of a stream whose factors differ from those of the source that lies along them."""
    source = part.written
    if source is None:
        return set()
    found: set[int] = set()
    for dim, axis in enumerate(axes):
        place = part.source_axis(dim)
        if place is None or source.shape[place] != axis_size(axis):
            continue
        other = source.traced_layout.axes[place]
        if has_positions(other) and _positions_of(other) != _positions_of(axis):
            found.add(dim)
    return found


def _positions_of(axis: Axis) -> list[tuple[int, bool]]:
    return [(factor.size, factor.is_position) for factor in axis if factor.size != 1]


def _whole_axes(
    part: Part, source: Operand, axes: Sequence[Axis], touched: Collection[int]
) -> list[int]:
    """The axes of the source all of whose elements are needed."""
    if part.places is None:
        return list(range(len(source.shape)))
    equal = {
        part.source_axis(dim)
        for dim, axis in enumerate(axes)
        if dim not in touched and not has_positions(axis)
    }
    return [dim for dim in range(len(source.shape)) if dim not in equal]


def _axes_from_source(part: Part, source: Operand, batch: int) -> list[Axis]:
    """The axes of a constant after a part of it was written over.

    An axis along which the source lies is of its kind. Any other one has positions, if the source
    has its channels elsewhere, and channels if it has none. The first axis is the batch if it is as
    long.
    """
    shape = part.base.shape
    own = source.traced_layout.axes
    touched = range(len(shape)) if part.touched is None else part.touched
    axes: list[Axis] = []
    for dim, size in enumerate(shape):
        place = part.source_axis(dim)
        if part.places is None and dim == len(shape) - 1:
            last = own[-1] if own else ()
            place = len(own) - 1 if has_channels(last) and axis_size(last) == size else None
        along = own[place] if place is not None else None
        channels = along is not None and has_channels(along) and not has_positions(along)
        if along and dim not in touched and axis_size(along) == size:
            axes.append(along)
        elif channels or (along is None and not any(map(has_channels, own))):
            axes.append((Factor(size, Kind.CHANNEL),))
        elif dim == 0 and size == batch and (size != 1 or has_positions(along or ())):
            axes.append((Factor(size, Kind.BATCH),))
        elif dim in touched or is_dynamic(size):
            axes.append((Factor(size, Kind.POSITION),))
        else:
            axes.append((Factor(size, Kind.REPEATED),) if size != 1 else ())
    return _one_batch(axes)


def _one_batch(axes: list[Axis]) -> list[Axis]:
    """The axes, of which only the first one that is the batch stays it."""
    seen = False
    for dim, axis in enumerate(axes):
        if any(factor.kind is Kind.BATCH for factor in axis):
            if seen:
                axes[dim] = (Factor(axis_size(axis), Kind.POSITION),)
            seen = True
    return axes
