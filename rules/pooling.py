"""Pooling: spatial aggregation over windows, over the positions inside the image."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from labeltrace.errors import LayoutError
from labeltrace.flow import AdaptivePool, Flow, LabelView, Operand, Operation, Pool, Weights
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    arrange,
    axis_size,
    axis_text,
    channel,
    has_channels,
    has_positions,
    positions,
    pure_positions,
    renumbered,
)
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import relayout
from labeltrace.rule_helpers.weighted_sum import reason_mean_is_wrong

MAXIMUM = "the maximum is taken for the mean: which position it comes from depends on the values"


@register_rule("aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d")
def average_pool(call: Call) -> Flow:
    """The mean over windows."""
    return _pool(call, _unweighted(call))


@register_rule("aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d")
def maximum_pool(call: Call) -> Flow:
    """The maximum over windows, taken for the mean."""
    return _pool(call, MAXIMUM)


@register_rule(
    "aten.max_pool1d_with_indices",
    "aten.max_pool2d_with_indices",
    "aten.max_pool3d_with_indices",
)
def maximum_pool_and_index(call: Call) -> tuple[Flow, ...]:
    """The maximum over windows, and where it was found."""
    return with_index(_pool(call, MAXIMUM))


@register_rule("aten.lp_pool2d")
def power_pool(call: Call) -> Flow:
    """The power mean over windows, taken for the mean."""
    return _pool(call, "the power mean is taken for the mean")


@register_rule("aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d", "aten.adaptive_avg_pool3d")
def adaptive_average_pool(call: Call) -> Flow:
    """The mean over windows that tile the image."""
    return _adaptive(call, _unweighted(call))


@register_rule("aten.adaptive_max_pool1d", "aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d")
def adaptive_maximum_pool(call: Call) -> tuple[Flow, ...]:
    """The maximum over windows that tile the image, and where it was found."""
    return with_index(_adaptive(call, MAXIMUM))


def with_index(flow: Flow) -> tuple[Flow, ...]:
    """An extreme value, and an index, which has positions and no content."""
    return (flow, flow if flow.layout is None else Weights(layout=flow.layout))


def _unweighted(call: Call) -> str:
    source: Operand = call["self"]
    rank = len(source.shape)
    return reason_mean_is_wrong(source, range(rank - space_count(call), rank))


def _pool(call: Call, approximation: str) -> Flow:
    source: Operand = call["self"]
    kernel = per_dimension(call["kernel_size"], space_count(call))
    field = spatial_field(source, space_count(call), call.output)
    if not field.varies:
        return without_positions(source, space_count(call), call.output)
    if source.is_weights:
        return Weights(layout=renumbered(field.axes), approximation=approximation)
    return Pool(
        layout=renumbered(field.axes),
        field_shape=field.result,
        source=field.labels,
        kernel=kernel,
        stride=per_dimension(call.get("stride") or kernel, len(kernel)),
        padding=per_dimension(call.get("padding", 0), len(kernel)),
        dilation=per_dimension(call.get("dilation", 1), len(kernel)),
        ceil_mode=call.get("ceil_mode", False),
        approximation=approximation,
    )


def _adaptive(call: Call, approximation: str) -> Flow:
    source: Operand = call["self"]
    count = space_count(call)
    field = spatial_field(source, count, call.output)
    if not field.varies:
        return without_positions(source, count, call.output)
    if source.is_weights:
        return Weights(layout=renumbered(field.axes), approximation=approximation)
    return AdaptivePool(
        layout=renumbered(field.axes),
        field_shape=field.result,
        source=field.labels,
        output_size=tuple(call.output[-count:]),
        approximation=approximation,
    )


def space_count(call: Call) -> int:
    """The number of dimensions of space, by the operator's name."""
    return next(int(character) for character in call.operator if character.isdigit())


def per_dimension(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    """A setting for each dimension of space: one number stands for all."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * count if len(values) == 1 else values


@dataclass(frozen=True, slots=True)
class SpatialField:
    """A field as (everything else, *space), for steps that slide or pool over space.

    ``axes`` are those of the step's result, ``result`` the sizes of its field; ``varies`` says
    whether the label varies along space at all.
    """

    labels: LabelView
    axes: tuple[Axis, ...]
    result: tuple[int, ...]
    varies: bool


def spatial_field(
    source: Operand, count: int, output: Sequence[int], passed: Container[int] = ()
) -> SpatialField:
    """The field of an activation whose last ``count`` axes are space, for a result of ``output``.

    A step takes the axes of space ``passed`` index by index: where they have no positions they are
    dimensions of size one.

    Raises:
        LayoutError: an axis of space has positions and channels both, or some axes of space have
            positions and others channels.
    """
    layout = source.traced_layout
    rest, space = layout.axes[:-count], layout.axes[-count:]
    varies = any(has_positions(axis) for axis in space)
    kept = {dim for dim in range(count) if dim in passed and not has_positions(space[dim])}
    for dim, axis in enumerate(space):
        if varies and dim not in kept and not pure_positions(axis) and axis_size(axis) > 1:
            raise LayoutError(f"an axis of space is not made of positions: {axis_text(axis)}")
    other = tuple(factor for axis in rest for factor in positions(axis))
    groups = [other, *(positions(axis) for axis in space)]
    sizes = [1 if dim in kept else size for dim, size in enumerate(output[-count:])]
    slid: list[Axis] = [(Factor(size, Kind.POSITION),) if size > 1 else () for size in sizes]
    axes = (space[dim] if dim in kept else axis for dim, axis in enumerate(slid))
    return SpatialField(
        labels=LabelView(source, arrange(layout, groups)),
        axes=(*rest, *axes),
        result=(axis_size(other), *sizes),
        varies=varies,
    )


def without_positions(
    source: Operand, count: int, output: Sequence[int], channels: int | None = None
) -> Flow:
    """A step over ``count`` axes of space along which no label varies: channel mixing.

    ``channels`` is the size of axis 1 of the result where the step changes it.
    """
    axes = list(source.traced_layout.axes)
    for dim in range(len(axes) - count, len(axes)):
        axes[dim] = resized(axes[dim], output[dim])
    if channels is not None:
        axes[1] = channel(channels)
    return relayout(source, Layout(tuple(axes)), operation=Operation.CHANNEL_MIXING)


def resized(axis: Axis, size: int) -> Axis:
    """An axis without positions, with another size."""
    repeated = any(factor.kind is Kind.REPEATED for factor in axis) or not axis
    kind = Kind.REPEATED if repeated and not has_channels(axis) else Kind.CHANNEL
    return (Factor(size, kind),)
