"""Windows: cut out of the image, where they may overlap, and laid back over one another.

Cutting out only moves positions: those inside a window stand where the operator puts them, in the
channel axis or in one of their own.  Padding carries the prior (contract, point 3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Fold, LabelView, Operand, Operation, Unfold, Weights
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    arrange,
    arrange_positions,
    axis_size,
    axis_text,
    batch_slot,
    channel,
    cut_windows,
    has_channels,
    has_positions,
    positions,
    pure_positions,
    renumbered,
    replace_axis,
    view,
)
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import relayout
from labeltrace.rule_helpers.output_facts import with_key_features
from labeltrace.rules.pooling import per_dimension, resized


@dataclass(frozen=True, slots=True)
class Window:
    """How an axis is cut into windows; ``count`` is their number."""

    count: int
    size: int
    stride: int
    padding: int = 0
    dilation: int = 1

    @property
    def tiles(self) -> bool:
        """Whether windows stand side by side, none over another, and none over the edge."""
        return self.size == self.stride and not self.padding and self.dilation == 1

    def cover(self, size: int) -> bool:
        """Whether some window has a tap on each position of an axis of that size."""
        starts = range(-self.padding, self.count * self.stride - self.padding, self.stride)
        taps = range(0, self.size * self.dilation, self.dilation)
        return {start + tap for start in starts for tap in taps}.issuperset(range(size))


@register_rule("aten.unfold")
def unfold(call: Call) -> Flow:
    """Windows of one axis; the positions inside them become the last axis."""
    source: Operand = call["self"]
    dim = call["dimension"] % len(source.shape)
    window = Window(call.output[dim], call["size"], call["step"])
    return _finished(source, *_cut(source, {dim: window}))


@register_rule("aten.im2col")
def im2col(call: Call) -> Flow:
    """Windows of rows and columns: (..., C, H, W) to (..., C * window, windows)."""
    source: Operand = call["self"]
    sliding = _sliding(call, source.shape[-2:])
    layout, step = _cut(source, dict(enumerate(sliding, len(source.shape) - 2)))
    *batch, channels, rows, columns, high, wide = layout.axes
    joined = Layout((*batch, (*channels, *high, *wide), (*rows, *columns)))
    return _finished(source, joined, step)


@register_rule("aten.col2im")
def fold(call: Call) -> Flow:
    """Windows laid over one another and added up: (..., C * window, windows) to (..., C, H, W)."""
    source: Operand = call["self"]
    sizes = per_dimension(call["output_size"], 2)
    sliding = _sliding(call, sizes)
    kernel = [window.size for window in sliding]
    *batch, channels, count = source.shape
    shape = (*batch, channels // prod(kernel))
    split = view(source.traced_layout, (*shape, prod(kernel), count))
    *rest, taps, places = split.axes
    rest[-1] = rest[-1] or channel(1)  # one channel, of which a view may keep no factor
    if not has_positions(taps) and not has_positions(places):
        alike = Layout((*rest, *(resized(places, size) for size in sizes)))
        return relayout(source, alike, operation=Operation.CHANNEL_MIXING)
    maps: list[Axis] = [(Factor(size, Kind.POSITION),) if size > 1 else () for size in sizes]
    if _is_mixed(taps) or _is_mixed(places):
        split = view(source.traced_layout, (*shape, *kernel, *(window.count for window in sliding)))
        high, wide, rows, columns = split.axes[-4:]
        taps, places = (), ()
        for dim, (inside, across) in enumerate([(high, rows), (wide, columns)]):
            if has_positions(inside + across) or not sliding[dim].cover(sizes[dim]):
                taps, places = taps + inside, places + across
            else:  # labels are the same all along it
                maps[dim] = resized(across, sizes[dim])
                sliding[dim] = Window(1, 1, 1)
    for axis in (taps, places):
        if _is_mixed(axis):
            raise LayoutError(f"windows of positions and channels are folded: {axis_text(axis)}")
    layout = renumbered([*rest, *maps])
    if source.is_weights:
        return Weights(layout=layout)
    other = tuple(factor for axis in split.axes[: len(rest)] for factor in positions(axis))
    arrangement = arrange(split, (other, positions(taps), positions(places)))
    elsewhere = any(factor.kind is not Kind.BATCH for factor in other)
    flow = _laid_back(LabelView(source, arrangement), layout, sliding)
    # What lands on a map is no feature of keys.
    return flow if elsewhere else with_key_features(flow, False)


def _sliding(call: Call, sizes: Sequence[int]) -> list[Window]:
    """How windows slide over the rows and the columns of a map of such sizes."""
    names = ("kernel_size", "stride", "padding", "dilation")
    sliding: list[Window] = []
    for room, *own in zip(sizes, *(per_dimension(call[name], 2) for name in names), strict=True):
        size, stride, padding, dilation = own
        count = (room + 2 * padding - dilation * (size - 1) - 1) // stride + 1
        sliding.append(Window(count, size, stride, padding, dilation))
    return sliding


def _is_mixed(axis: Axis) -> bool:
    """Whether an axis has positions and others."""
    return has_positions(axis) and not pure_positions(axis)


def _laid_back(source: LabelView, layout: Layout, sliding: Sequence[Window]) -> Fold:
    """The step for labels of a batch, of the positions in a window and of the windows."""
    sizes = tuple(prod(factor.size for factor in positions(axis)) for axis in layout.axes[-2:])
    return Fold(
        operation=(
            Operation.RELAYOUT
            if all(window.tiles for window in sliding)
            else Operation.SPATIAL_AGGREGATION
        ),
        layout=layout,
        field_shape=(source.arrangement.shape[0], *sizes),
        source=source,
        sizes=sizes,
        kernel=tuple(window.size for window in sliding),
        stride=tuple(window.stride for window in sliding),
        padding=tuple(window.padding for window in sliding),
        dilation=tuple(window.dilation for window in sliding),
    )


def _cut(source: Operand, cuts: Mapping[int, Window]) -> tuple[Layout, Unfold | None]:
    """The layout with an axis more for each cut, and the step if positions are cut.

    Raises:
        LayoutError: an axis to be cut has positions and channels, or it is the batch.
    """
    layout = source.traced_layout
    varying = [dim for dim, window in cuts.items() if _varies(layout.axes[dim], window.padding)]
    for dim in varying:
        axis = layout.axes[dim]
        if _is_mixed(axis) or any(factor.kind is Kind.BATCH for factor in axis):
            raise LayoutError(f"windows of an axis that is not of space alone: {axis_text(axis)}")
    if not varying:
        axes = [
            resized(axis, cuts[dim].count) if dim in cuts else axis
            for dim, axis in enumerate(layout.axes)
        ]
        inside = [resized(layout.axes[dim], window.size) for dim, window in cuts.items()]
        return Layout((*axes, *inside)), None
    arrangement, dims, fresh = arrange_positions(layout, varying)
    copies: list[int] = []
    for dim in varying:
        size = axis_size(layout.axes[dim])
        copies.append(1 if has_positions(layout.axes[dim]) else size)
        fresh = replace_axis(fresh, dim, (Factor(size, Kind.POSITION),))
    fresh = renumbered(fresh.axes)
    cut = cut_windows(fresh, {dim: (cuts[dim].count, cuts[dim].size) for dim in varying})
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
        source=LabelView(source, arrangement),
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
        return relayout(source, layout, operation=Operation.RELAYOUT)
    return Weights(layout=layout) if source.is_weights else replace(step, layout=layout)
