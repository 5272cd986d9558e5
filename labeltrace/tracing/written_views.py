"""Views of memory, a part of which another view writes to: `o[:, 1:] = v`, `o[i].copy_(image)`.

A view has the label of what stands there in the end. All writes since its label was computed are
one step, so that channels written one after the other each have the label of their own write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labeltrace.capture.call_records import CallRecord, TensorRecord
from labeltrace.errors import LayoutError
from labeltrace.flow import Elements, LabelField, LabelView, Operand, ValueFacts, ValueRef, Write
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Size,
    axis_size,
    has_channels,
    has_positions,
    renumbered,
    simplify,
)
from labeltrace.rule_helpers.picked_elements import (
    axis_after_index,
    dims_of_axes,
    element_labels,
    factor_sizes,
    kept_factors,
)
from labeltrace.rule_helpers.written_parts import batch_dimension, elements_of_constant
from labeltrace.tracing.environment import Environment
from labeltrace.tracing.overlapping_views import PlainView, plain_views
from labeltrace.tracing.values import Value


@dataclass(frozen=True, slots=True)
class PartWrite:
    """A write: which view of the memory, and what stands there afterwards; None for a constant."""

    view: TensorRecord
    value: Value | None


@dataclass(frozen=True, slots=True)
class WrittenView:
    """What a view held before it was written to, all writes since, and what it holds now."""

    before: Value | None
    writes: tuple[PartWrite, ...]
    now: Value | None


class WrittenViews:
    """The views that were written to in part, by the names of their calls."""

    def __init__(self) -> None:
        self._views: dict[str, WrittenView] = {}

    def of(self, view: CallRecord, now: Value | None, environment: Environment) -> WrittenView:
        """The writes to a view, also where they were made through another call's same view."""
        found = self._views.get(view.name)
        if found is not None and found.now is now:
            return found
        assert view.tensor is not None
        for other in environment.views(view.name, until=view.index):
            known = self._views.get(other.name)
            same = other.tensor is not None and other.tensor.is_same_view(view.tensor)
            if known and same and _same_label(known.now, now):
                return known
        return WrittenView(now, (), now)

    def remember(self, view: CallRecord, written: WrittenView) -> None:
        """Enter the writes to a view."""
        self._views[view.name] = written


def _same_label(one: Value | None, other: Value | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.field, one.layout) == (other.field, other.layout)


def after_part_write(
    record: CallRecord,
    view: CallRecord,
    write: PartWrite,
    number: int,
    environment: Environment,
    views: WrittenViews,
) -> Value | None:
    """What is known of a view after a write to a part of it; its label step is added.

    Args:
        record: the call that writes.
        view: the call whose result is the view.
        write: the write.
        number: of the label field, if one is computed.
        environment: what is known.
        views: the earlier writes; this one is remembered.

    Raises:
        LayoutError: the label cannot be followed.
    """
    known = views.of(view, environment.value(view.name), environment)
    writes = (*known.writes, write)
    after = _value(record, view, known.before, writes, number, environment)
    views.remember(view, WrittenView(known.before, writes, after))
    return after


def _value(
    record: CallRecord,
    view: CallRecord,
    before: Value | None,
    writes: tuple[PartWrite, ...],
    number: int,
    environment: Environment,
) -> Value | None:
    values = [before, *(write.value for write in writes)]
    known = [value for value in values if value is not None]
    assert view.tensor is not None
    if before is not None and before.field is None:
        return before  # mixing weights are read from memory as they are
    if not any(value.field for value in known):
        if not known:
            return None
        layout = renumbered(_axes_of_constant(view.tensor, writes, environment.batch))
        return Value(layout, None, ValueRef(view.name))
    if any(value.field is None for value in known):
        raise LayoutError("a view of content is overwritten by mixing weights; use a fresh tensor")
    if before is not None:
        axes = list(before.layout.axes)
    else:
        axes = _axes_of_constant(view.tensor, writes, environment.batch)
    step = _step(view.tensor, before, axes, writes)
    field = environment.field_of(step, LabelField(record.name, number))
    facts = ValueFacts.mixed(value.facts for value in known)
    return Value(simplify(step.layout), field, ValueRef(view.name), facts)


def _step(
    view: TensorRecord, before: Value | None, axes: list[Axis], writes: tuple[PartWrite, ...]
) -> Write:
    whole = {dim for dim in range(len(axes)) if not _is_one_for_all(view, dim, axes[dim], writes)}
    axes = [
        axis_after_index(axis, axis_size(axis)) if dim in whole and not _pure(axis) else axis
        for dim, axis in enumerate(axes)
    ]
    pieces: list[LabelView | None] = [None]
    elements = [elements_of_constant(axes, whole)]
    new = dims_of_axes(axes)
    kept_dims = dict(enumerate(new))
    if before is not None:
        pieces[0], elements[0] = element_labels(_operand(before, view), whole, kept_dims)
    own = _geometry(view, whole)
    places = []
    for write in writes:
        part_whole = _whole_of_part(view, write, whole)
        if write.value is None:
            pieces.append(None)
            elements.append(Elements(sizes=(), shape=()))
        else:
            operand = _operand(write.value, write.view)
            along = {_full_axis(view, dim, write.view): new[dim] for dim in range(len(axes))}
            rows = {axis: dims for axis, dims in along.items() if axis is not None}
            piece, element = element_labels(operand, part_whole, rows)
            pieces.append(piece)
            elements.append(element)
        places.append(("view", (*own, *_geometry(write.view, part_whole))))
    return Write(
        layout=renumbered(axes),
        pieces=tuple(pieces),
        elements=tuple(elements),
        places=tuple(places),
        adds=(False,) * len(places),
        keeps=(False,) * len(places),
        result=factor_sizes(axes, whole),
        kept=kept_factors(axes),
        batch=batch_dimension(axes),
    )


def _pure(axis: Axis) -> bool:
    return has_positions(axis) and all(factor.is_position for factor in axis)


def _operand(value: Value, tensor: TensorRecord) -> Operand:
    return Operand(("self",), tensor.shape, value.layout, value.field, value.source, value.facts)


# Axes of channels or copies along which every write has all of them stay one.


def _is_one_for_all(
    view: TensorRecord, dim: int, axis: Axis, writes: tuple[PartWrite, ...]
) -> bool:
    if has_positions(axis):
        return False
    return all(_same_axis(view, dim, write) is not None for write in writes)


def _same_axis(view: TensorRecord, dim: int, write: PartWrite) -> int | None:
    """The axis of a written part that is all of an axis of the view, without positions."""
    found = _full_axis(view, dim, write.view)
    if found is not None and write.value is not None:
        return None if has_positions(write.value.layout.axes[found]) else found
    return found


def _full_axis(view: TensorRecord, dim: int, part: TensorRecord) -> int | None:
    """The axis of a part that is all of an axis of the view, index by index."""
    size, stride = view.shape[dim], view.strides[dim]
    found = [
        axis
        for axis in range(len(part.shape))
        if (part.shape[axis], part.strides[axis]) == (size, stride) and size != 1
    ]
    return found[0] if len(found) == 1 and _starts(view, part)[dim] == 0 else None


def _whole_of_part(view: TensorRecord, write: PartWrite, whole: set[int]) -> set[int]:
    cut = {_same_axis(view, dim, write) for dim in range(len(view.shape)) if dim not in whole}
    return {axis for axis in range(len(write.view.shape)) if axis not in cut}


def _geometry(
    tensor: TensorRecord, whole: set[int]
) -> tuple[tuple[Size, ...], tuple[Size, ...], Size]:
    """Shape, strides and offset of a view, cut to one along the axes that stand for all."""
    shape = tuple(size if dim in whole or size == 0 else 1 for dim, size in enumerate(tensor.shape))
    return shape, tensor.strides, tensor.offset


# The axes of a constant to which parts are written.


def _starts(view: TensorRecord, part: TensorRecord) -> list[int]:
    """Where a part begins along each axis of a view."""
    whole, cut = next(plain_views(view, part))
    rest = cut.offset - whole.offset
    starts = [0] * len(whole.shape)
    for dim in sorted(range(len(whole.shape)), key=lambda d: -whole.strides[d]):
        if whole.shape[dim] > 1 and whole.strides[dim] > 0:
            starts[dim], rest = divmod(rest, whole.strides[dim])
    return starts


def _along(view: TensorRecord, part: TensorRecord, dim: int) -> int | None:
    """The axis of a part that runs along an axis of the view; None for one index of it."""
    whole, cut = next(plain_views(view, part))
    for axis, (size, stride) in enumerate(zip(part.shape, cut.strides, strict=True)):
        if size != 1 and _axis_of(whole, stride) == dim:
            return axis
    return None


def _axis_of(view: PlainView, stride: int) -> int | None:
    """The axis of a view along which a stride runs: that of the largest stride dividing it."""
    found = [
        (own, dim)
        for dim, (size, own) in enumerate(zip(view.shape, view.strides, strict=True))
        if size > 1 and own > 0 and stride % own == 0 and stride // own < size
    ]
    return max(found)[1] if found else None


def _axes_of_constant(view: TensorRecord, writes: Sequence[PartWrite], batch: Size) -> list[Axis]:
    """The axes of a constant after parts of it were written over.

    An axis along which some part has channels has channels. So has an axis of which each part is
    one index, where the parts have no other channels. All others have positions; the first one is
    the batch where it is as long.
    """
    labeled = [write for write in writes if write.value is not None]
    axes: list[Axis] = []
    for dim, size in enumerate(view.shape):
        kinds: list[Axis | None] = []
        for write in labeled:
            assert write.value is not None
            place = _along(view, write.view, dim)
            kinds.append(None if place is None else write.value.layout.axes[place])
        found = [axis for axis in kinds if axis is not None]
        elsewhere = any(
            has_channels(axis) for w in labeled if w.value for axis in w.value.layout.axes
        )
        if size == 1:
            axes.append(())
        elif _is_of_channels(found, elsewhere):
            axes.append((Factor(size, Kind.CHANNEL),))
        elif dim == 0 and size == batch:
            axes.append((Factor(size, Kind.BATCH),))
        else:
            axes.append((Factor(size, Kind.POSITION),))
    return axes


def _is_of_channels(along: Sequence[Axis], elsewhere: bool) -> bool:
    if not along:
        return not elsewhere
    return any(has_channels(axis) and not has_positions(axis) for axis in along)
