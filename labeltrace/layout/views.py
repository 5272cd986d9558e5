"""Views: what `permute`, `unsqueeze`, `expand` and `reshape` do to a layout.

They change the axes. The label field stays as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from labeltrace.errors import LayoutError
from labeltrace.layout.batch_size import Size
from labeltrace.layout.factors import (
    Axis,
    Factor,
    Kind,
    axis_size,
    axis_text,
    has_channels,
    has_positions,
)
from labeltrace.layout.formatting import size_text
from labeltrace.layout.layout import Layout, renumbered
from labeltrace.layout.splitting import SplitFactor, merge_neighbors, number_field_dims, take


def simplify(layout: Layout) -> Layout:
    """The same layout with as few factors as possible: equal labels get equal layouts."""
    return number_field_dims(merge_neighbors(axis) for axis in layout.axes)


def permute(layout: Layout, dims: Sequence[int]) -> Layout:
    """The axes in another order."""
    return Layout(tuple(layout.axes[dim] for dim in dims))


def unsqueeze(layout: Layout, dim: int) -> Layout:
    """A new axis of size one before axis `dim`."""
    return Layout((*layout.axes[:dim], (), *layout.axes[dim:]))


def expand(layout: Layout, shape: Sequence[Size]) -> Layout:
    """Axes of size one repeated to `shape`; missing leading axes are added.

    An axis of one channel becomes an axis of channels, any other one of repeated positions.

    Raises:
        LayoutError: an axis of another size than one would be repeated.

    >>> from labeltrace.layout.layout import input_layout
    >>> mean = unsqueeze(input_layout((2, 3), channel_dim=1), 1)
    >>> print(expand(mean, (2, 5, 3)))
    (2 batch, 5 repeated, 3 channel)
    """
    missing = len(shape) - len(layout.axes)
    axes: list[Axis] = []
    for axis, size in zip(((),) * missing + layout.axes, shape, strict=True):
        if axis_size(axis) == size:
            axes.append(axis)
        elif axis_size(axis) != 1:
            raise LayoutError(
                f"an axis of {axis_text(axis)} cannot be repeated to {size_text(size)} indices: "
                f"{layout}"
            )
        elif has_positions(axis):
            axes.append((*axis, Factor(size, Kind.REPEATED)))
        else:
            kind = Kind.CHANNEL if has_channels(axis) else Kind.REPEATED
            axes.append((Factor(size, kind),))
    return Layout(tuple(axes))


def view(layout: Layout, shape: Sequence[Size]) -> Layout:
    """The layout of `activation.reshape(shape)`.

    Raises:
        LayoutError: a new axis would cut through a factor, so that one index of it would contain
            parts of several positions.

    An image's rows and columns merged into tokens, and its rows split into 2 × 2:

    >>> from labeltrace.layout.layout import input_layout
    >>> image = input_layout((2, 3, 4, 6), channel_dim=1)
    >>> print(view(image, (2, 3, 24)))
    (2 batch, 3 channel, 24 position)
    >>> print(view(image, (2, 3, 2, 2, 6)))
    (2 batch, 3 channel, 2 position, 2 position, 6 position)

    Columns before rows are not one factor, because the field has rows before columns. Such an axis
    can be cut between or inside its factors, but not across their border:

    >>> columns_first = view(permute(image, (0, 1, 3, 2)), (2, 3, 24))
    >>> print(columns_first)
    (2 batch, 3 channel, 6 position * 4 position)
    >>> print(view(columns_first, (2, 3, 3, 8)))
    (2 batch, 3 channel, 3 position, 2 position * 4 position)
    >>> view(columns_first, (2, 3, 8, 3))
    Traceback (most recent call last):
    ...
    labeltrace.errors.LayoutError: a view of ... as (2, 3, 8, 3) cuts through a factor: ...
    """
    try:
        return _view_of_factors(layout, shape)
    except LayoutError:
        if 0 in layout.field_sizes:
            return _view_of_nothing(layout, shape)
        raise


def _view_of_factors(layout: Layout, shape: Sequence[Size]) -> Layout:
    """The view, whose axes are made of the layout's factors or of parts of them."""
    queue = merge_neighbors(factor for axis in layout.axes for factor in axis)
    queue.reverse()  # the next factor is the last one
    axes: list[tuple[SplitFactor, ...]] = []
    for size, following in itertools.pairwise((*shape, 0)):
        axis = take(queue, size, layout, shape)
        axes.append(axis if following == 1 else axis + _trailing_ones(axis, queue))
    left = [factor for factor in queue if factor.key]  # positions of size one keep their field dims
    if left and axes:
        axes[-1] = axes[-1] + tuple(reversed(left))
    return simplify(number_field_dims(axes))


def _view_of_nothing(layout: Layout, shape: Sequence[Size]) -> Layout:
    """The view of a tensor without positions, all of whose axes but those at both ends are new.

    It is needed where the new axes are not made of the old ones' factors.

    >>> from labeltrace.layout.layout import input_layout
    >>> print(view(input_layout((2, 0, 4), channel_dim=2), (2, 0, 3, 4)))
    (2 batch, 0 position, 3 position, 4 channel)
    """
    axes: list[Axis] = [(Factor(size, Kind.POSITION),) if size != 1 else () for size in shape]
    for end in (0, -1):
        if axes and layout.axes and shape[end] == axis_size(layout.axes[end]):
            axes[end] = layout.axes[end]
    return renumbered(axes)


def _trailing_ones(
    axis: tuple[SplitFactor, ...], queue: list[SplitFactor]
) -> tuple[SplitFactor, ...]:
    """Take positions of size one between this axis, of positions, and channels off the queue.

    By size they could belong to either axis. They go to the axis of positions, because an axis of
    channels that contains a position would no longer count as an axis of channels.

    A map of one row, channels last: the row of size one goes to the columns, not to the channels.

    >>> from labeltrace.layout.layout import input_layout
    >>> columns_row_channels = permute(input_layout((2, 6, 1, 11), channel_dim=1), (0, 3, 2, 1))
    >>> print(columns_row_channels)
    (2 batch, 11 position, 1 position, 6 channel)
    >>> print(view(columns_row_channels, (2, 11, 2, 3)))
    (2 batch, 11 position * 1 position, 2 channel, 3 channel)
    """
    if not axis or axis[-1].kind is not Kind.POSITION:
        return ()
    ones = list(itertools.takewhile(lambda one: one.key and one.size == 1, reversed(queue)))
    rest = len(queue) - len(ones)
    if rest and queue[rest - 1].key:
        return ()
    del queue[rest:]
    return tuple(ones)
