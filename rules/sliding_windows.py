"""Windows of an activation: unfold and im2col cut them out, col2im adds them up on a map.

To cut windows out moves positions and mixes nothing. The positions inside a window become part of
the channel axis, or an axis of their own. Padding carries the prior (contract, point 3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Fold, LabelView, Operand, Operation, Unfold, Weights
from labeltrace.layout import (
    Axis,
    Kind,
    Layout,
    SlidingWindow,
    arrange,
    axis_size,
    axis_text,
    channel,
    cut_windows,
    has_channels,
    has_positions,
    positions,
    renumbered,
    view,
)
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import relayout
from labeltrace.rule_helpers.moved_positions import is_mixed, moved_labels, resized_positions
from labeltrace.rule_helpers.output_facts import with_key_features
from labeltrace.rule_helpers.spatial import map_axis, per_dimension, resized_axis, windows_of


@register_rule("aten.unfold")
def unfold(call: Call) -> Flow:
    """Windows of one axis; the positions inside a window become the last axis."""
    source: Operand = call["self"]
    dim = call["dimension"] % len(source.shape)
    windows = {dim: SlidingWindow(call["size"], call["step"])}
    return _cut(source, windows, _cut_layout(source, windows))


@register_rule("aten.im2col")
def im2col(call: Call) -> Flow:
    """Windows of rows and columns: (*, C, H, W) to (*, C * taps, windows)."""
    source: Operand = call["self"]
    windows = dict(enumerate(windows_of(call, 2), len(source.shape) - 2))
    cut = _cut_layout(source, windows)
    *batch, channels, row_windows, column_windows, row_taps, column_taps = cut.axes
    axes = (*batch, (*channels, *row_taps, *column_taps), (*row_windows, *column_windows))
    return _cut(source, windows, Layout(axes))


def _cut_layout(source: Operand, windows: Mapping[int, SlidingWindow]) -> Layout:
    """The layout with each axis of `windows` cut in two.

    The windows take the place of the axis. The positions inside a window, its taps, become a new
    axis after all others. An axis of 6 positions with `SlidingWindow(3, stride=2)`:

        (B, 6 position, 8 channel)  becomes  (B, 2 position, 8 channel, 3 position)

        position    0  1  2  3  4  5
        window 0    x  x  x
        window 1          x  x  x

    Raises:
        LayoutError: an axis to be cut has both positions and channels, or it is the batch.
    """
    layout = source.traced_layout
    varying = _varying(layout, windows)
    if varying:
        layout = resized_positions(layout, {dim: axis_size(layout.axes[dim]) for dim in varying})
    cut = cut_windows(layout, {dim: windows[dim] for dim in varying})
    axes = list(cut.axes[: len(layout.axes)])
    taps = dict(zip(varying, cut.axes[len(layout.axes) :], strict=True))
    for dim, window in windows.items():
        if dim not in varying:
            taps[dim] = resized_axis(axes[dim], window.kernel)
            axes[dim] = resized_axis(axes[dim], window.count(axis_size(axes[dim])))
    return Layout((*axes, *(taps[dim] for dim in windows)))


def _varying(layout: Layout, windows: Mapping[int, SlidingWindow]) -> list[int]:
    """The axes whose windows differ in their labels: by position, or because padding has the prior.

    Raises:
        LayoutError: one of them has both positions and channels, or it is the batch.
    """
    varying: list[int] = []
    for dim, window in windows.items():
        axis = layout.axes[dim]
        if not has_positions(axis) and (has_channels(axis) or not window.is_padded):
            continue
        if is_mixed(axis) or any(factor.kind is Kind.BATCH for factor in axis):
            raise LayoutError(f"windows of an axis that is not of space alone: {axis_text(axis)}")
        varying.append(dim)
    return varying


def _cut(source: Operand, windows: Mapping[int, SlidingWindow], result: Layout) -> Flow:
    """The flow of windows that are cut out, for the axes `result` of `_cut_layout`."""
    layout = source.traced_layout
    varying = _varying(layout, windows)
    if not varying:
        return relayout(source, result, operation=Operation.RELAYOUT)
    moved = moved_labels(source, varying)
    sizes = {dim: axis_size(layout.axes[dim]) for dim in varying}
    copies = [1 if has_positions(layout.axes[dim]) else size for dim, size in sizes.items()]
    cut = tuple(windows[dim] for dim in varying)
    step = Unfold(
        layout=result,
        source=moved.view,
        dims=tuple(moved.dims[dim] for dim in varying),
        windows=cut,
        copies=tuple(copies) if any(count > 1 for count in copies) else (),
    )
    return Weights(layout=result) if source.is_weights else step


@register_rule("aten.col2im")
def col2im(call: Call) -> Flow:
    """Windows added up on a map: (*, C * taps, windows) to (*, C, H, W)."""
    source: Operand = call["self"]
    sizes = per_dimension(call["output_size"], 2)
    columns = _columns(source, windows_of(call, 2), sizes)
    if not has_positions(columns.taps) and not has_positions(columns.places):
        axes = (*columns.rest, *(resized_axis(columns.places, size) for size in sizes))
        return relayout(source, Layout(axes), operation=Operation.CHANNEL_MIXING)
    if is_mixed(columns.taps) or is_mixed(columns.places):
        columns = _without_equal_sides(source, columns, sizes)
    for axis in (columns.taps, columns.places):
        if is_mixed(axis):
            raise LayoutError(f"windows of positions and channels are folded: {axis_text(axis)}")
    layout = renumbered([*columns.rest, *columns.map])
    if source.is_weights:
        return Weights(layout=layout)
    other = columns.other_positions
    groups = (other, positions(columns.taps), positions(columns.places))
    arrangement = arrange(columns.layout, groups)
    map_sizes = tuple(prod(factor.size for factor in positions(axis)) for axis in columns.map)
    has_other_positions = any(factor.kind is not Kind.BATCH for factor in other)
    tiled = all(window.is_tiling for window in columns.windows)
    flow = Fold(
        operation=Operation.RELAYOUT if tiled else Operation.SPATIAL_AGGREGATION,
        layout=layout,
        field_shape=(arrangement.shape[0], *map_sizes),
        source=LabelView(source, arrangement),
        sizes=map_sizes,
        windows=columns.windows,
    )
    # The values of a map are no features of keys.
    return flow if has_other_positions else with_key_features(flow, False)


@dataclass(frozen=True, slots=True)
class _Columns:
    """The operand of `col2im`, its channel axis split, and the map that it becomes.

    Attributes:
        layout: the operand's layout with the channel axis split into channels and taps.
        rest: the leading axes and the channels.
        taps: the positions inside a window.
        places: the windows.
        windows: how windows slide over the map's rows and columns.
        map: the rows and columns of the result.
    """

    layout: Layout
    rest: tuple[Axis, ...]
    taps: Axis
    places: Axis
    windows: tuple[SlidingWindow, ...]
    map: tuple[Axis, ...]

    @property
    def other_positions(self) -> Axis:
        """The positions of the leading axes and the channels, as dimensions of the field."""
        axes = self.layout.axes[: len(self.rest)]
        return tuple(factor for axis in axes for factor in positions(axis))


def _columns(source: Operand, windows: tuple[SlidingWindow, ...], sizes: Sequence[int]) -> _Columns:
    """The columns (*, C * taps, windows) as (*, C, taps, windows), for a map of `sizes`."""
    *leading, channels, count = source.shape
    kernel = prod(window.kernel for window in windows)
    layout = view(source.traced_layout, (*leading, channels // kernel, kernel, count))
    *rest, taps, places = layout.axes
    rest[-1] = rest[-1] or channel(1)  # a view may keep no factor of a single channel
    return _Columns(layout, tuple(rest), taps, places, windows, tuple(map(map_axis, sizes)))


def _without_equal_sides(source: Operand, columns: _Columns, sizes: Sequence[int]) -> _Columns:
    """The columns, with taps and windows reduced to the sides of the map along which labels differ.

    Each side (rows, columns) has its own taps and windows. A side along which all labels are equal
    stays out of the step; on the map it is resized. Labels that differ by row only, with a window
    of 2 rows by 3 columns on a map of 6 by 9:

        taps     2 position * 3 repeated   ->  2 position
        windows  5 position * 7 repeated   ->  5 position
        map      6 position, 9 position    ->  6 position, 9 repeated
    """
    *leading, channels, _ = source.shape
    kernel = tuple(window.kernel for window in columns.windows)
    counts = (window.count(size) for window, size in zip(columns.windows, sizes, strict=True))
    shape = (*leading, channels // prod(kernel), *kernel, *counts)
    layout = view(source.traced_layout, shape)
    row_taps, column_taps, row_windows, column_windows = layout.axes[-4:]
    taps: Axis = ()
    places: Axis = ()
    windows, sides = list(columns.windows), list(columns.map)
    for dim, inside, across in ((0, row_taps, row_windows), (1, column_taps, column_windows)):
        if _has_equal_labels(inside, across, windows[dim], sizes[dim]):
            sides[dim] = resized_axis(across, sizes[dim])
            windows[dim] = SlidingWindow(1)
        else:
            taps, places = (*taps, *inside), (*places, *across)
    return _Columns(layout, columns.rest, taps, places, tuple(windows), tuple(sides))


def _has_equal_labels(inside: Axis, across: Axis, window: SlidingWindow, size: int) -> bool:
    """Whether all labels along one side of a map are equal.

    They are if neither the taps `inside` a window nor the windows `across` the side have positions,
    and every index of the side is in a window. An index in no window takes the mean of all labels.
    """
    return not has_positions(inside + across) and window.covers(size)
