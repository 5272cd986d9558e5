"""Indexing: slices, splits, single indices; and axes rolled or reversed.

Positions are selected or reordered and nothing is mixed.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from labeltrace.errors import LayoutError
from labeltrace.flow import (
    Flip,
    Flow,
    Operand,
    Operation,
    Roll,
    Select,
    Slice,
    Take,
    Weights,
)
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    Size,
    axis_size,
    axis_text,
    divides,
    has_channels,
    has_positions,
    is_dynamic,
    renumbered,
    replace_axis,
    size_text,
)
from labeltrace.rule_api.call import Call, listed
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import relayout
from labeltrace.rule_helpers.moved_positions import (
    is_mixed,
    moved_labels,
    position_axis,
    resized_positions,
)
from labeltrace.rule_helpers.picked_elements import index_tensor


@register_rule("aten.slice", "aten.narrow")
def slice_(call: Call) -> Flow:
    """`start:end:step` of one axis."""
    source: Operand = call["self"]
    dim = call.get("dim", 0) % len(source.shape)
    size = source.shape[dim]
    start = _clamped(call.get("start", 0), size)
    return narrowed(source, dim, start, call.output[dim], call.get("step", 1))


@register_rule("aten.select")
def select(call: Call) -> Flow:
    """One index of an axis."""
    source: Operand = call["self"]
    dim = call["dim"] % len(source.shape)
    size = source.shape[dim]
    index = call["index"]
    return _selected(source, dim, index + size if index < 0 else index)


@register_rule("aten.unbind")
def unbind(call: Call) -> tuple[Flow, ...]:
    """Each index of an axis, as a tuple."""
    source: Operand = call["self"]
    dim = call.get("dim", 0) % len(source.shape)
    return tuple(_selected(source, dim, index) for index in range(len(call.outputs)))


@register_rule("aten.chunk", "aten.split", "aten.split_with_sizes", "aten.tensor_split")
def split(call: Call) -> tuple[Flow, ...]:
    """Consecutive parts of an axis."""
    source: Operand = call["self"]
    dim = call.get("dim", 0) % len(source.shape)
    flows: list[Flow] = []
    start: Size = 0
    for shape in call.outputs:
        flows.append(narrowed(source, dim, start, shape[dim]))
        start += shape[dim]
    return tuple(flows)


@register_rule("aten.roll")
def roll(call: Call) -> Flow:
    """Axes rolled: indices that leave at one end come back at the other."""
    source: Operand = call["self"]
    if not call.get("dims"):
        raise LayoutError("a roll of the flattened activation moves channels into positions")
    shifts, dims = listed(call["shifts"]), [d % len(source.shape) for d in listed(call["dims"])]
    varying = _axes_of_positions(source, dims)
    if not varying or source.is_weights:
        return relayout(source, source.traced_layout, operation=Operation.RELAYOUT)
    moved = moved_labels(source, varying)
    return Roll(
        layout=moved.layout,
        source=moved.view,
        shifts=tuple(shift for shift, dim in zip(shifts, dims, strict=True) if dim in varying),
        dims=tuple(moved.dims[dim] for dim in dims if dim in varying),
    )


@register_rule("aten.flip", "aten.fliplr", "aten.flipud")
def flip(call: Call) -> Flow:
    """Axes reversed."""
    source: Operand = call["self"]
    named = {"aten.fliplr": [1], "aten.flipud": [0]}
    dims = [d % len(source.shape) for d in named.get(call.operator) or call["dims"]]
    varying = _axes_of_positions(source, dims)
    if not varying or source.is_weights:
        return relayout(source, source.traced_layout, operation=Operation.RELAYOUT)
    moved = moved_labels(source, varying)
    return Flip(
        layout=moved.layout,
        source=moved.view,
        dims=tuple(moved.dims[dim] for dim in varying),
    )


def narrowed(source: Operand, dim: int, start: Size, size: Size, step: int = 1) -> Flow:
    """`size` indices of axis `dim`: `start`, `start + step` and so on.

    (B, 6 position, 8 channel) with dim 1, start 1, size 2 and step 3 becomes (B, 2 position,
    8 channel): the positions 1 and 4.
    """
    dim %= len(source.shape)
    layout = source.traced_layout
    axis = layout.axes[dim]
    if size == axis_size(axis):
        return relayout(source, layout, operation=Operation.RELAYOUT)
    if not has_positions(axis):
        kept = replace_axis(layout, dim, (_resized(layout, dim, size),))
        return relayout(source, kept, operation=Operation.RELAYOUT)
    if is_mixed(axis):
        return _narrowed_block(source, dim, start, size, step)
    result = resized_positions(layout, {dim: size})
    if source.is_weights:
        return Weights(layout=result)
    moved = moved_labels(source, [dim])
    return Slice(
        layout=result,
        source=moved.view,
        dim=moved.dims[dim],
        start=_from_nearer_end(start, axis_size(axis)),
        end=_end_of_slice(start + (size - 1) * step + 1 if size != 0 else start, axis_size(axis)),
        step=step,
    )


def _narrowed_block(source: Operand, dim: int, start: Size, size: Size, step: int) -> Flow:
    """A slice of an axis of positions and channels: whole blocks of its outermost factor.

    (4 channel * 9 position) from 18 on with size 9 is the third of four blocks of 9:
    (1 channel * 9 position).
    """
    axis = source.traced_layout.axes[dim]
    outer, inner = axis[0], axis[1:]
    block = axis_size(inner)
    whole = divides(block, start) and divides(block, size)
    if step != 1 or not whole or outer.is_position or not source.labeled:
        raise LayoutError(
            f"a slice {size_text(start)}:{size_text(start + size)}:{step} cuts through an axis of "
            f"positions and channels: {axis_text(axis)}"
        )
    kept = replace(outer, size=size // block)
    layout = replace_axis(source.traced_layout, dim, (kept, *inner))
    return relayout(source, layout, operation=Operation.RELAYOUT)


def _selected(source: Operand, dim: int, index: Size) -> Flow:
    layout = source.traced_layout
    axis = layout.axes[dim]
    without = Layout((*layout.axes[:dim], *layout.axes[dim + 1 :]))
    if not has_positions(axis):
        return relayout(source, without, operation=Operation.RELAYOUT)
    if source.is_weights:
        return Weights(layout=renumbered(without.axes))
    if is_mixed(axis):
        raise LayoutError(
            f"one index of an axis of positions and channels is taken: {axis_text(axis)}"
        )
    moved = moved_labels(source, [dim])
    return Select(
        layout=renumbered(without.axes),
        source=moved.view,
        dim=moved.dims[dim],
        index=_from_nearer_end(index, axis_size(axis)),
    )


def taken(source: Operand, dim: int, index: Operand, sizes: Sequence[Size]) -> Flow:
    """The indices of axis `dim` that a tensor holds, as axes of `sizes`."""
    layout = source.traced_layout
    axis = layout.axes[dim]
    before, after = layout.axes[:dim], layout.axes[dim + 1 :]
    if not has_positions(axis):
        resized: list[Axis] = [(_resized(layout, dim, size),) for size in sizes]
        kept = Layout((*before, *resized, *after))
        return relayout(source, kept, operation=Operation.RELAYOUT)
    result = renumbered((*before, *(position_axis(size, axis) for size in sizes), *after))
    if source.is_weights:
        return Weights(layout=result)
    moved = moved_labels(source, [dim])
    return Take(
        layout=result,
        field_shape=resized_positions(layout, {dim: prod(sizes)}).field_sizes,
        source=moved.view,
        dim=moved.dims[dim],
        index=index_tensor(index),
    )


def _axes_of_positions(source: Operand, dims: Sequence[int]) -> list[int]:
    """The axes among `dims` that have positions.

    Raises:
        LayoutError: one of them has channels as well.
    """
    axes = source.traced_layout.axes
    for dim in dims:
        if is_mixed(axes[dim]):
            raise LayoutError(f"an axis of positions and channels moves: {axis_text(axes[dim])}")
    return [dim for dim in dims if has_positions(axes[dim])]


def _resized(layout: Layout, dim: int, size: Size) -> Factor:
    """A factor for some indices of axis `dim`, which has no positions.

    An axis of size one without a factor becomes channels if no other axis has channels.
    """
    axis = layout.axes[dim]
    channels = has_channels(axis) or (not axis and not any(map(has_channels, layout.axes)))
    return Factor(size, Kind.CHANNEL if channels else Kind.REPEATED)


def _from_nearer_end(index: Size, size: Size) -> Size:
    """An index of an axis, counted from the end if that makes it a number.

    Raises:
        LayoutError: the index depends on values, not on the size of the batch alone.
    """
    if isinstance(index, int) or isinstance(index - size, int):
        return index if isinstance(index, int) else index - size
    if not index.is_of_batch:
        raise LayoutError(f"where an axis is cut is computed from values: at {index}")
    return index


def _end_of_slice(index: Size, size: Size) -> Size | None:
    """Where a slice ends, None at the end of a dynamic axis."""
    return None if is_dynamic(size) and index == size else _from_nearer_end(index, size)


def _clamped(start: Size, size: Size) -> Size:
    first = start + size if start < 0 else start
    first = first if first >= 0 else 0
    return first if first <= size else size
