"""Pooling: one value for each window, by average, maximum or power mean.

All of it is spatial aggregation: the mean label of the positions of a window that are inside the
image (contract, point 7).
"""

from labeltrace.flow import AdaptivePool, Flow, Operand, Pool, Weights
from labeltrace.layout import renumbered
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.output_facts import with_origins
from labeltrace.rule_helpers.own_statistics import reduced_origins
from labeltrace.rule_helpers.spatial import (
    space_count,
    spatial_field,
    windows_of,
    without_positions,
)
from labeltrace.rule_helpers.weighted_sum import reason_mean_is_wrong

MAXIMUM = "the maximum is taken for the mean: which position it comes from depends on the values"


@register_rule("aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d")
def avg_pool(call: Call) -> Flow:
    """The mean over windows."""
    return _pool(call, _reason_mean_is_wrong(call))


@register_rule("aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d")
def max_pool(call: Call) -> Flow:
    """The maximum over windows; its label is the mean over the window."""
    return _pool(call, MAXIMUM)


@register_rule(
    "aten.max_pool1d_with_indices",
    "aten.max_pool2d_with_indices",
    "aten.max_pool3d_with_indices",
)
def max_pool_with_indices(call: Call) -> tuple[Flow, ...]:
    """The maximum over windows, and its index."""
    return with_index(_pool(call, MAXIMUM))


@register_rule("aten.lp_pool2d")
def lp_pool(call: Call) -> Flow:
    """The power mean over windows; its label is the mean over the window."""
    return _pool(call, "the power mean is taken for the mean")


@register_rule("aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d", "aten.adaptive_avg_pool3d")
def adaptive_avg_pool(call: Call) -> Flow:
    """The mean over windows that divide the image."""
    return _adaptive_pool(call, _reason_mean_is_wrong(call))


@register_rule("aten.adaptive_max_pool1d", "aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d")
def adaptive_max_pool(call: Call) -> tuple[Flow, ...]:
    """The maximum over windows that divide the image, and its index."""
    return with_index(_adaptive_pool(call, MAXIMUM))


def with_index(flow: Flow) -> tuple[Flow, ...]:
    """An extreme value, and its index, which has positions and no content."""
    return (flow, flow if flow.layout is None else Weights(layout=flow.layout))


def _reason_mean_is_wrong(call: Call) -> str:
    source: Operand = call["self"]
    rank = len(source.shape)
    return reason_mean_is_wrong(source, range(rank - space_count(call), rank))


def _pool(call: Call, approximation: str) -> Flow:
    source: Operand = call["self"]
    count = space_count(call)
    field = spatial_field(source, count, call.output)
    if not field.varies:
        return without_positions(source, count, call.output)
    if source.is_weights:
        return Weights(layout=renumbered(field.axes), approximation=approximation)
    step = Pool(
        layout=renumbered(field.axes),
        field_shape=field.result,
        source=field.labels,
        windows=windows_of(call, count),
        ceil_mode=call.get("ceil_mode", False),
        approximation=approximation,
    )
    whole = all(
        window.kernel == size and not any(window.padding) and window.dilation == 1
        for window, size in zip(step.windows, source.shape[-count:], strict=True)
    )
    return _with_statistics(step, source, count) if whole else step


def _adaptive_pool(call: Call, approximation: str) -> Flow:
    source: Operand = call["self"]
    count = space_count(call)
    field = spatial_field(source, count, call.output)
    if not field.varies:
        return without_positions(source, count, call.output)
    if source.is_weights:
        return Weights(layout=renumbered(field.axes), approximation=approximation)
    step = AdaptivePool(
        layout=renumbered(field.axes),
        field_shape=field.result,
        source=field.labels,
        output_size=tuple(call.output[-count:]),
        approximation=approximation,
    )
    whole = all(size == 1 for size in step.output_size)
    return _with_statistics(step, source, count) if whole else step


def _with_statistics(flow: Flow, source: Operand, count: int) -> Flow:
    """The flow of a pooling whose only window is all of space: a statistic of the operand."""
    kept = source.traced_layout.axes[:-count]
    return with_origins(flow, reduced_origins(source, kept))
