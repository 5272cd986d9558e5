"""Axes of space: what convolutions, pooling, interpolation and windows have in common."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, LabelView, Operand, Operation
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    Size,
    SlidingWindow,
    arrange,
    axis_size,
    axis_text,
    channel,
    has_channels,
    has_positions,
    positions,
    pure_positions,
    sliding_windows,
)
from labeltrace.rule_api.call import Call
from labeltrace.rule_helpers.elementwise import relayout


def space_count(call: Call) -> int:
    """The number of dimensions of space, from the operator's name: 2 for `aten.max_pool2d`."""
    return next(int(character) for character in call.operator if character.isdigit())


def per_dimension(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    """A setting for each dimension of space; one number is for all of them."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * count if len(values) == 1 else values


def windows_of(call: Call, count: int) -> tuple[SlidingWindow, ...]:
    """The windows of a pooling, `im2col` or `col2im`, whose arguments have the same names.

    The defaults are torch's: the stride is the kernel size, the padding 0 and the dilation 1.
    """
    kernel = per_dimension(call["kernel_size"], count)
    return sliding_windows(
        kernel,
        per_dimension(call.get("stride") or kernel, count),
        per_dimension(call.get("padding", 0), count),
        per_dimension(call.get("dilation", 1), count),
    )


@dataclass(frozen=True, slots=True)
class SpatialField:
    """A label field as (everything else, *space), for steps that slide or pool over space.

    Attributes:
        labels: the operand's labels with these dimensions.
        axes: the axes of the step's result.
        result: the sizes of the result's field.
        varies: whether the label varies along space at all.
    """

    labels: LabelView
    axes: tuple[Axis, ...]
    result: tuple[Size, ...]
    varies: bool


def spatial_field(
    source: Operand, count: int, output: Sequence[Size], index_by_index: Container[int] = ()
) -> SpatialField:
    """The field of an activation whose last `count` axes are space, for a result of `output`.

    The step reads a single index along the axes of space in `index_by_index`. Those of them that
    have no positions become dimensions of size one.

    Example: the input (B, 3, 8 rows, 8 columns) of a pooling with `output` (B, 3, 4, 4) gives
    labels with the dimensions (B, 8, 8), axes (B, 3, 4, 4) and the result (B, 4, 4).

    Raises:
        LayoutError: an axis of space has both positions and channels, or some axes of space have
            positions and others channels.
    """
    layout = source.traced_layout
    rest, space = layout.axes[:-count], layout.axes[-count:]
    varies = any(has_positions(axis) for axis in space)
    kept = {dim for dim in range(count) if dim in index_by_index and not has_positions(space[dim])}
    for dim, axis in enumerate(space):
        if varies and dim not in kept and not pure_positions(axis) and axis_size(axis) > 1:
            raise LayoutError(f"an axis of space is not made of positions: {axis_text(axis)}")
    other = tuple(factor for axis in rest for factor in positions(axis))
    groups = [other, *(positions(axis) for axis in space)]
    sizes = [1 if dim in kept else size for dim, size in enumerate(output[-count:])]
    axes = (space[dim] if dim in kept else map_axis(size) for dim, size in enumerate(sizes))
    return SpatialField(
        labels=LabelView(source, arrange(layout, groups)),
        axes=(*rest, *axes),
        result=(axis_size(other), *sizes),
        varies=varies,
    )


def without_positions(
    source: Operand, count: int, output: Sequence[Size], channels: Size | None = None
) -> Flow:
    """A step over `count` axes of space along which no label varies: channel mixing.

    `channels` is the size of axis 1 of the result if the step changes it.
    """
    axes = list(source.traced_layout.axes)
    for dim in range(len(axes) - count, len(axes)):
        axes[dim] = resized_axis(axes[dim], output[dim])
    if channels is not None:
        axes[1] = channel(channels)
    return relayout(source, Layout(tuple(axes)), operation=Operation.CHANNEL_MIXING)


def resized_axis(axis: Axis, size: Size) -> Axis:
    """An axis without positions, with another size."""
    repeated = any(factor.kind is Kind.REPEATED for factor in axis) or not axis
    kind = Kind.REPEATED if repeated and not has_channels(axis) else Kind.CHANNEL
    return (Factor(size, kind),)


def map_axis(size: Size) -> Axis:
    """Rows or columns of a map: positions, or an axis without factors if there is only one."""
    return (Factor(size, Kind.POSITION),) if size != 1 else ()
