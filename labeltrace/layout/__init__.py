"""Layouts: what each axis of an activation is made of, and how views move it.

An axis is a sequence of *factors* (`labeltrace.layout.factors`): positions, the batch, repeated
positions and channels. The label field of an activation is one tensor with a dimension for each
position factor, the batch included, and the K sources last. A factor's `field_dim` says which
dimension of the field it is. Views and permutations change the axes and not the field, so a label
tensor is copied into another order only where a step needs it.

Everything here is immutable. Sizes are integers, or where they depend on a dynamic batch, a
`BatchSize` (`labeltrace.layout.batch_size`).
"""

from labeltrace.layout.arrangement import (
    Arrangement,
    arrange,
    arrange_by_axis,
    arrange_positions,
)
from labeltrace.layout.batch_size import (
    BATCH,
    BatchSize,
    Size,
    batch_size,
    divides,
    fixed_size,
    unknown_size,
)
from labeltrace.layout.broadcasting import Alignment, CommonFactor, align_axes
from labeltrace.layout.dynamic_sizes import infer_dynamic, is_dynamic
from labeltrace.layout.factors import (
    Axis,
    Factor,
    Kind,
    axis_size,
    axis_text,
    channel,
    has_channels,
    has_positions,
    is_repeated,
    positions,
    pure_positions,
)
from labeltrace.layout.formatting import shape_text, size_text
from labeltrace.layout.layout import (
    Layout,
    factor_kinds,
    input_layout,
    renumbered,
    replace_axis,
)
from labeltrace.layout.sliding_window import SlidingWindow, sliding_windows
from labeltrace.layout.views import expand, permute, simplify, unsqueeze, view
from labeltrace.layout.windows import cut_windows
from labeltrace.layout.written_size import BATCH_NAME, Written, WrittenSize, infix

__all__ = [
    "BATCH",
    "BATCH_NAME",
    "Alignment",
    "Arrangement",
    "Axis",
    "BatchSize",
    "CommonFactor",
    "Factor",
    "Kind",
    "Layout",
    "Size",
    "SlidingWindow",
    "Written",
    "WrittenSize",
    "align_axes",
    "arrange",
    "arrange_by_axis",
    "arrange_positions",
    "axis_size",
    "axis_text",
    "batch_size",
    "channel",
    "cut_windows",
    "divides",
    "expand",
    "factor_kinds",
    "fixed_size",
    "has_channels",
    "has_positions",
    "infer_dynamic",
    "infix",
    "input_layout",
    "is_dynamic",
    "is_repeated",
    "permute",
    "positions",
    "pure_positions",
    "renumbered",
    "replace_axis",
    "shape_text",
    "simplify",
    "size_text",
    "sliding_windows",
    "unknown_size",
    "unsqueeze",
    "view",
]
