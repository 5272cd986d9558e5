"""Largest and smallest values, followed to the positions that they come from.

These rules are not filed: by the contract a pooled maximum has the mean label of its window (point
7), which is approximate.  ``align(model, rules=labeltrace.FOLLOW_MAXIMA)`` puts them in its place.
They read the values and are exact: each channel's maximum is a mixing matrix with a one in each
row, and the channels' matrices are averaged (point 4).
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import Tensor

from labeltrace.flow import Flow, Operand, Operation
from labeltrace.label_ops import follow_adaptive_pool, follow_extreme, follow_pool
from labeltrace.layout import has_channels, has_positions, pure_positions
from labeltrace.rule_api.call import Call, Rule
from labeltrace.rule_helpers import custom_step
from labeltrace.rules.pooling import (
    adaptive_maximum_pool,
    maximum_pool,
    maximum_pool_and_index,
    per_dimension,
    space_count,
    with_index,
)
from labeltrace.rules.reduction import dims_of, extreme, extreme_and_index


def followed_pool(call: Call) -> Flow:
    """The maximum over windows."""
    return _windows(call) or maximum_pool(call)


def followed_pool_and_index(call: Call) -> tuple[Flow, ...]:
    """The maximum over windows, and where it was found."""
    found = _windows(call)
    return with_index(found) if found else maximum_pool_and_index(call)


def followed_adaptive_pool(call: Call) -> tuple[Flow, ...]:
    """The maximum over windows that tile the image, and where it was found."""
    if not _slides_over_positions(call):
        return adaptive_maximum_pool(call)
    size = tuple(call.output[-space_count(call) :])
    return with_index(_pooled(call, partial(follow_adaptive_pool, output_size=size)))


def followed_extreme(call: Call) -> Flow:
    """The largest or smallest value over axes."""
    return _extreme(call) or extreme(call)


def followed_extreme_and_index(call: Call) -> tuple[Flow, ...]:
    """The largest or smallest value over one axis, and where it was found."""
    found = _extreme(call)
    return with_index(found) if found else extreme_and_index(call)


def _windows(call: Call) -> Flow | None:
    """Max pooling over positions; None where labels do not vary along space, or channels do."""
    if not _slides_over_positions(call):
        return None
    kernel = per_dimension(call["kernel_size"], space_count(call))
    settings = {
        "kernel": kernel,
        "stride": per_dimension(call.get("stride") or kernel, len(kernel)),
        "padding": per_dimension(call["padding"], len(kernel)),
        "dilation": per_dimension(call["dilation"], len(kernel)),
        "ceil_mode": call["ceil_mode"],
    }
    return _pooled(call, partial(follow_pool, **settings))


def _slides_over_positions(call: Call) -> bool:
    """Whether the activation is labelled and has positions, channels, and positions in space."""
    source: Operand = call["self"]
    if not source.labelled or len(source.shape) != space_count(call) + 2:
        return False
    first, channels, *rest = source.traced_layout.axes
    return not has_positions(channels) and all(map(pure_positions, (first, *rest)))


def _pooled(call: Call, function: Callable[..., Tensor]) -> Flow:
    source: Operand = call["self"]
    return custom_step(
        function,
        source,
        call.output,
        channels=[1],
        tensors=[source],
        operation=Operation.SPATIAL_AGGREGATION,
    )


def _extreme(call: Call) -> Flow | None:
    """An extreme value over axes of positions; None where these are none, or not apart."""
    source: Operand = call["self"]
    if not source.labelled:
        return None
    axes = source.traced_layout.axes
    dims = sorted(dims_of(call.get("dim"), len(axes)))
    mixed = any(has_positions(axis) and not pure_positions(axis) for axis in axes)
    if mixed or 0 in dims or not any(has_positions(axes[dim]) for dim in dims):
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
    dict.fromkeys(("aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d"), followed_pool)
    | dict.fromkeys(
        (
            "aten.max_pool1d_with_indices",
            "aten.max_pool2d_with_indices",
            "aten.max_pool3d_with_indices",
        ),
        followed_pool_and_index,
    )
    | dict.fromkeys(
        ("aten.adaptive_max_pool1d", "aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d"),
        followed_adaptive_pool,
    )
    | dict.fromkeys(("aten.amax", "aten.amin"), followed_extreme)
    | dict.fromkeys(("aten.max.dim", "aten.min.dim"), followed_extreme_and_index)
)
"""The rules by operator, for ``align(model, rules=...)`` and ``using_rules``."""
