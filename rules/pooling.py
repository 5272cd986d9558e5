"""Pooling: spatial aggregation over windows, over the positions inside the image."""

from collections.abc import Sequence

from labeltrace.call import Call
from labeltrace.errors import LayoutError
from labeltrace.flow import AdaptivePool, Flow, Labels, Operand, Pool, Weights
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    arrange,
    axis_text,
    has_positions,
    natural,
    positions,
    pure_positions,
)
from labeltrace.registry import rule

MAXIMUM = "the maximum is taken for the mean: which position it comes from depends on the values"


@rule("aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d")
def average_pool(call: Call) -> Flow:
    """The mean over windows."""
    return _pool(call, "")


@rule("aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d")
def maximum_pool(call: Call) -> Flow:
    """The maximum over windows, taken for the mean."""
    return _pool(call, MAXIMUM)


@rule("aten.lp_pool2d")
def power_pool(call: Call) -> Flow:
    """The power mean over windows, taken for the mean."""
    return _pool(call, "the power mean is taken for the mean")


@rule("aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d", "aten.adaptive_avg_pool3d")
def adaptive_average_pool(call: Call) -> Flow:
    """The mean over windows that tile the image."""
    return _adaptive(call, "")


@rule("aten.adaptive_max_pool1d", "aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d")
def adaptive_maximum_pool(call: Call) -> tuple[Flow, ...]:
    """The maximum over windows that tile the image, and where it was found."""
    flow = _adaptive(call, MAXIMUM)
    indices = Weights(layout=flow.layout) if flow.layout is not None else flow
    return (flow, indices)


def _pool(call: Call, approximation: str) -> Flow:
    source: Operand = call["self"]
    kernel = spread(call["kernel_size"], _space(call))
    labels, space, axes = spatial_field(source, _space(call), call.output)
    if not space:
        raise LayoutError(f"{call.operator} pools axes without positions: {source.layout}")
    if source.is_weights:
        return Weights(layout=natural(axes), approximation=approximation)
    return Pool(
        layout=natural(axes),
        source=labels,
        kernel=kernel,
        stride=spread(call.get("stride") or kernel, len(kernel)),
        padding=spread(call.get("padding", 0), len(kernel)),
        dilation=spread(call.get("dilation", 1), len(kernel)),
        ceil_mode=call.get("ceil_mode", False),
        approximation=approximation,
    )


def _adaptive(call: Call, approximation: str) -> Flow:
    source: Operand = call["self"]
    count = _space(call)
    labels, space, axes = spatial_field(source, count, call.output)
    if source.is_weights or not space:
        raise LayoutError(f"{call.operator} pools axes without positions: {source.layout}")
    return AdaptivePool(
        layout=natural(axes),
        source=labels,
        output_size=tuple(call.output[-count:]),
        approximation=approximation,
    )


def _space(call: Call) -> int:
    """The number of dimensions of space, by the operator's name."""
    return int(call.operator.removesuffix("d")[-1])


def spread(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    """A setting for each dimension of space: one number stands for all."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * count if len(values) == 1 else values


def spatial_field(
    source: Operand, count: int, output: Sequence[int]
) -> tuple[Labels, bool, list[Axis]]:
    """The field as (everything else, *space), and the axes of a result of shape ``output``.

    The last ``count`` axes are space; the second value is False if none of them has positions.

    Raises:
        LayoutError: an axis of space has positions and channels both, or just some of them have
            positions.
    """
    layout = source.positions
    rest, space = layout.axes[:-count], layout.axes[-count:]
    varying = [axis for axis in space if has_positions(axis)]
    for axis in varying:
        if not pure_positions(axis):
            raise LayoutError(f"an axis of space has positions and channels: {axis_text(axis)}")
    other = [factor for axis in rest for factor in positions(axis)]
    groups: list[Sequence[Factor]] = [other, *(positions(axis) for axis in space)]
    axes: list[Axis] = list(rest)
    axes += [(Factor(size, Kind.POSITION),) for size in output[-count:]]
    return Labels(source, arrange(layout, groups)), bool(varying), axes


