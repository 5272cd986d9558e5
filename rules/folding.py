"""Windows: cut out of the image, where they may overlap, and laid back over one another.

Cutting out only moves positions: those inside a window stand where the operator puts them, in the
channel axis or in one of their own.  Padding carries the prior (contract, point 3).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from labeltrace.call import Call
from labeltrace.combination import over
from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Fold, Labels, Operand, Operation, Unfold, Weights
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    arrange,
    arrange_one_by_one,
    axis_size,
    axis_text,
    batch_slot,
    channel,
    has_channels,
    has_positions,
    natural,
    positions,
    pure_positions,
    replace_axis,
    view,
    windows,
)
from labeltrace.registry import rule
from labeltrace.rules.pooling import resized, spread


@dataclass(frozen=True, slots=True)
class Window:
    """How an axis is cut into windows; ``count`` is their number."""

    count: int
    size: int
    stride: int
    padding: int = 0
    dilation: int = 1


@rule("aten.unfold")
def unfolded_axis(call: Call) -> Flow:
    """Windows of one axis; the positions inside them become the last axis."""
    source: Operand = call["self"]
    dim = call["dimension"] % len(source.shape)
    window = Window(call.output[dim], call["size"], call["step"])
    return _finished(source, *_cut(source, {dim: window}))


@rule("aten.im2col")
def unfolded(call: Call) -> Flow:
    """Windows of rows and columns: (..., C, H, W) to (..., C * window, windows)."""
    source: Operand = call["self"]
    names = ("kernel_size", "stride", "padding", "dilation")
    sliding = zip(*(spread(call[name], 2) for name in names), strict=True)
    cuts: dict[int, Window] = {}
    for dim, (size, stride, padding, dilation) in enumerate(sliding, len(source.shape) - 2):
        room = source.shape[dim] + 2 * padding - dilation * (size - 1) - 1
        cuts[dim] = Window(room // stride + 1, size, stride, padding, dilation)
    layout, step = _cut(source, cuts)
    *batch, channels, rows, columns, high, wide = layout.axes
    joined = Layout((*batch, (*channels, *high, *wide), (*rows, *columns)))
    return _finished(source, joined, step)


@rule("aten.col2im")
def folded(call: Call) -> Flow:
    """Windows laid over one another and added up: (..., C * window, windows) to (..., C, H, W)."""
    source: Operand = call["self"]
    names = ("output_size", "kernel_size", "stride", "padding", "dilation")
    sizes, kernel, stride, padding, dilation = (spread(call[name], 2) for name in names)
    *batch, channels, count = source.shape
    split = (*batch, channels // prod(kernel), prod(kernel), count)
    *rest, taps, places = view(source.positions, split).axes
    rest[-1] = rest[-1] or channel(1)  # one channel, of which a view may keep no factor
    for axis in (taps, places):
        if has_positions(axis) and not pure_positions(axis):
            raise LayoutError(f"windows of positions and channels are folded: {axis_text(axis)}")
    if not has_positions(taps) and not has_positions(places):
        space = (resized(places, size) for size in sizes)
        return over(source, Layout((*rest, *space)), operation=Operation.CHANNEL_MIXING)
    maps: list[Axis] = [(Factor(size, Kind.POSITION),) if size > 1 else () for size in sizes]
    layout = natural([*rest, *maps])
    if source.is_weights:
        return Weights(layout=layout)
    other = tuple(factor for axis in rest for factor in positions(axis))
    tiles = kernel == stride and not any(padding) and all(d == 1 for d in dilation)
    groups = (other, positions(taps), positions(places))
    elsewhere = any(factor.kind is not Kind.BATCH for factor in other)
    return Fold(
        features=None if elsewhere else False,  # what lands on a map is no feature of keys
        operation=Operation.RELAYOUT if tiles else Operation.SPATIAL_AGGREGATION,
        layout=layout,
        stored=(axis_size(other), *sizes),
        source=Labels(source, arrange(view(source.positions, split), groups)),
        sizes=sizes,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )


def _cut(source: Operand, cuts: Mapping[int, Window]) -> tuple[Layout, Unfold | None]:
    """The layout with an axis more for each cut, and the step if positions are cut.

    Raises:
        LayoutError: an axis to be cut has positions and channels, or it is the batch.
    """
    layout = source.positions
    varying = [dim for dim, window in cuts.items() if _varies(layout.axes[dim], window.padding)]
    for dim in varying:
        axis = layout.axes[dim]
        mixed = has_positions(axis) and not pure_positions(axis)
        if mixed or any(factor.kind is Kind.BATCH for factor in axis):
            raise LayoutError(f"windows of an axis that is not of space alone: {axis_text(axis)}")
    if not varying:
        axes = [
            resized(axis, cuts[dim].count) if dim in cuts else axis
            for dim, axis in enumerate(layout.axes)
        ]
        inside = [resized(layout.axes[dim], window.size) for dim, window in cuts.items()]
        return Layout((*axes, *inside)), None
    arrangement, dims, fresh = arrange_one_by_one(layout, varying)
    copies: list[int] = []
    for dim in varying:
        size = axis_size(layout.axes[dim])
        copies.append(1 if has_positions(layout.axes[dim]) else size)
        fresh = replace_axis(fresh, dim, (Factor(size, Kind.POSITION),))
    fresh = natural(fresh.axes)
    cut = windows(fresh, {dim: (cuts[dim].count, cuts[dim].size) for dim in varying})
    axes, behind = list(cut.axes[: len(layout.axes)]), list(cut.axes[len(layout.axes) :])
    for index, (dim, window) in enumerate(cuts.items()):
        if dim not in varying:
            behind.insert(index, resized(axes[dim], window.size))
            axes[dim] = resized(axes[dim], window.count)
    result = Layout((*axes, *behind))
    chosen = [cuts[dim] for dim in varying]
    padding = tuple(window.padding for window in chosen)
    return result, Unfold(
        layout=result,
        source=Labels(source, arrangement),
        dims=tuple(dims[dim] for dim in varying),
        kernel=tuple(window.size for window in chosen),
        stride=tuple(window.stride for window in chosen),
        padding=padding,
        dilation=tuple(window.dilation for window in chosen),
        batch_dim=batch_slot(fresh) if any(padding) else 0,
        copies=tuple(copies) if any(count > 1 for count in copies) else (),
    )


def _varies(axis: Axis, padding: int) -> bool:
    """Whether what stands in the windows of an axis differs: by position, or by the prior."""
    return has_positions(axis) or (padding > 0 and not has_channels(axis))


def _finished(source: Operand, layout: Layout, step: Unfold | None) -> Flow:
    """The flow of windows once their axes stand where the operator puts them."""
    if step is None:
        return over(source, layout, operation=Operation.RELAYOUT)
    return Weights(layout=layout) if source.is_weights else replace(step, layout=layout)
