"""Axes of positions cut into windows, which may overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from labeltrace.layout.factors import Factor, Kind
from labeltrace.layout.layout import Layout
from labeltrace.layout.sliding_window import SlidingWindow


def cut_windows(layout: Layout, windows: Mapping[int, SlidingWindow]) -> Layout:
    """Axes of one position factor each, cut into windows.

    The positions inside a window become an axis of their own after all other axes, in the order of
    `windows`. In the field they follow the dimension of the windows.

    Args:
        layout: the layout before.
        windows: how a window slides, for each axis that is cut.

    >>> from labeltrace.layout.layout import input_layout
    >>> print(cut_windows(input_layout((2, 3, 8), channel_dim=1), {2: SlidingWindow(5)}))
    (2 batch, 3 channel, 4 position, 5 position)
    """
    split = sorted(layout.axes[dim][0].field_dim for dim in windows)
    moved = Layout(
        tuple(
            tuple(
                replace(f, field_dim=_dim_after_split(f, split)) if f.is_position else f
                for f in axis
            )
            for axis in layout.axes
        )
    )
    axes = list(moved.axes)
    for dim, window in windows.items():
        (whole,) = axes[dim]
        axes[dim] = (Factor(window.count(whole.size), Kind.POSITION, whole.field_dim),)
        axes.append((Factor(window.kernel, Kind.POSITION, whole.field_dim + 1),))
    return Layout(tuple(axes))


def _dim_after_split(factor: Factor, split: Sequence[int]) -> int:
    """The field dimension of a factor once each of the dimensions `split` has become two."""
    return factor.field_dim + sum(dim < factor.field_dim for dim in split)
