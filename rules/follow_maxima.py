"""Maxima and minima whose labels are those of the positions that the values come from.

These rules are not registered: by default a pooled maximum has the mean label of its window
(contract, point 7), which is an approximation. `align(model, rules=labeltrace.FOLLOW_MAXIMA)` uses
them instead. They read the values and are exact: each channel's maximum is a mixing matrix with a
single one in each row, and the matrices are averaged over channels (point 4).
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import Tensor

from labeltrace.flow import Flow, Operand, Operation
from labeltrace.label_ops import follow_adaptive_pool, follow_extreme, follow_pool
from labeltrace.layout import fixed_size, has_channels, has_positions, pure_positions
from labeltrace.rule_api.call import Call, Rule
from labeltrace.rule_helpers import custom_step
from labeltrace.rule_helpers.moved_positions import is_mixed
from labeltrace.rule_helpers.spatial import space_count, windows_of
from labeltrace.rules.pooling import (
    adaptive_max_pool,
    max_pool,
    max_pool_with_indices,
    with_index,
)
from labeltrace.rules.reduction import amax, dims_of, max_dim


def follow_max_pool(call: Call) -> Flow:
    """The maximum over windows."""
    return _follow_windows(call) or max_pool(call)


def follow_max_pool_with_indices(call: Call) -> tuple[Flow, ...]:
    """The maximum over windows, and its index."""
    flow = _follow_windows(call)
    return with_index(flow) if flow else max_pool_with_indices(call)


def follow_adaptive_max_pool(call: Call) -> tuple[Flow, ...]:
    """The maximum over windows that divide the image, and its index."""
    if not _slides_over_positions(call):
        return adaptive_max_pool(call)
    size = tuple(fixed_size(size) for size in call.output[-space_count(call) :])
    return with_index(_pooled(call, partial(follow_adaptive_pool, output_size=size)))


def follow_amax(call: Call) -> Flow:
    """The largest or smallest value over axes."""
    return _follow_reduction(call) or amax(call)


def follow_max_dim(call: Call) -> tuple[Flow, ...]:
    """The largest or smallest value over one axis, and its index."""
    flow = _follow_reduction(call)
    return with_index(flow) if flow else max_dim(call)


def _follow_windows(call: Call) -> Flow | None:
    """Max pooling over positions; None if labels do not vary along space, or channels do."""
    if not _slides_over_positions(call):
        return None
    windows = windows_of(call, space_count(call))
    settings = {
        "kernel": tuple(window.kernel for window in windows),
        "stride": tuple(window.stride for window in windows),
        "padding": tuple(window.symmetric_padding for window in windows),
        "dilation": tuple(window.dilation for window in windows),
        "ceil_mode": call["ceil_mode"],
    }
    return _pooled(call, partial(follow_pool, **settings))


def _slides_over_positions(call: Call) -> bool:
    """Whether the activation is labeled and has positions, channels, and positions in space."""
    source: Operand = call["self"]
    if not source.labeled or len(source.shape) != space_count(call) + 2:
        return False
    first, channels, *rest = source.traced_layout.axes
    return not has_positions(channels) and all(map(pure_positions, (first, *rest)))


def _pooled(call: Call, function: Callable[..., Tensor]) -> Flow:
    """A step that calls `function` with the labels and values of a pooled activation."""
    source: Operand = call["self"]
    return custom_step(
        function,
        source,
        call.output,
        channels=[1],
        tensors=[source],
        operation=Operation.SPATIAL_AGGREGATION,
    )


def _follow_reduction(call: Call) -> Flow | None:
    """An extreme value over axes of positions.

    None if no reduced axis has positions, if the batch is reduced, or if an axis is mixed.
    """
    source: Operand = call["self"]
    if not source.labeled:
        return None
    axes = source.traced_layout.axes
    dims = sorted(dims_of(call.get("dim"), len(axes)))
    if any(map(is_mixed, axes)) or 0 in dims or not any(has_positions(axes[dim]) for dim in dims):
        return None
    keep = call["keepdim"]
    channels = [dim for dim, axis in enumerate(axes) if has_channels(axis)]
    kept = [dim for dim in range(len(axes)) if keep or dim not in dims]
    function = partial(
        follow_extreme,
        dims=dims,
        varying=[dim for dim, axis in enumerate(axes) if has_positions(axis)],
        channels=channels,
        largest="max" in call.operator,
        keep=keep,
    )
    return custom_step(
        function,
        source,
        call.output,
        channels=[place for place, dim in enumerate(kept) if dim in channels and dim not in dims],
        tensors=[source],
        operation=Operation.SPATIAL_AGGREGATION,
    )


FOLLOW_MAXIMA: Mapping[str, Rule] = MappingProxyType(
    dict.fromkeys(("aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d"), follow_max_pool)
    | dict.fromkeys(
        (
            "aten.max_pool1d_with_indices",
            "aten.max_pool2d_with_indices",
            "aten.max_pool3d_with_indices",
        ),
        follow_max_pool_with_indices,
    )
    | dict.fromkeys(
        ("aten.adaptive_max_pool1d", "aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d"),
        follow_adaptive_max_pool,
    )
    | dict.fromkeys(("aten.amax", "aten.amin"), follow_amax)
    | dict.fromkeys(("aten.max.dim", "aten.min.dim"), follow_max_dim)
)
"""The rules by operator, for `align(model, rules=...)` and `using_rules`."""
