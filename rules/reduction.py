"""Reductions over axes: sums, means, moments, norms, maxima and minima.

Over positions they aggregate (contract, point 7); over channels they mix channels.
"""

from dataclasses import replace
from math import inf

from labeltrace.flow import Flow, Operand, Operation, Weights
from labeltrace.layout import (
    Axis,
    Layout,
    channel,
    has_channels,
    has_positions,
    renumbered,
    unsqueeze,
)
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.aggregation import aggregation
from labeltrace.rule_helpers.elementwise import relayout
from labeltrace.rule_helpers.output_facts import after_nonlinear, with_origins
from labeltrace.rule_helpers.own_statistics import reduced_origins, statistics_of_channels
from labeltrace.rule_helpers.weighted_sum import is_score, reason_mean_is_wrong, weighted_sum
from labeltrace.rules.pooling import with_index

SELECTING = "which position a value comes from depends on the values; their mean is taken"


@register_rule("aten.mean", "aten.sum", "aten.nansum", "aten.nanmean")
def mean(call: Call) -> Flow:
    """A sum or mean; the sum of a stream times mixing weights mixes with these (point 4)."""
    source: Operand = call["self"]
    summed = dims_of(call.get("dim"), len(source.shape))
    flow = weighted_sum(source, summed)
    if flow is None:
        flow = _reduce(call, reason_mean_is_wrong(source, summed))
        return after_nonlinear(flow, is_gate=True) if is_score(source, summed) else flow
    if flow.layout is None or not call.get("keepdim", False):
        return flow
    layout = flow.layout
    for dim in sorted(summed):
        layout = unsqueeze(layout, dim)
    return replace(flow, layout=layout, as_weights=None)


@register_rule(
    "aten.logsumexp",
    "aten.std",
    "aten.var",
    "aten.prod",
)
def moment(call: Call) -> Flow:
    """A spread or product over axes, in which every value counts equally."""
    return _reduce(call, "", is_gate=False)


@register_rule("aten.var_mean", "aten.std_mean")
def moments(call: Call) -> tuple[Flow, ...]:
    """A spread and the mean over axes."""
    return _reduce(call, "", is_gate=False), _reduce(call, "")


@register_rule("aten.linalg_vector_norm", "aten.norm", "aten.linalg_norm")
def norm(call: Call) -> Flow:
    """A norm over axes; some norms select the largest or smallest value, row or column."""
    order = call.get("ord", call.get("p"))
    of_matrices = call.operator == "aten.linalg_norm" and len(call.get("dim") or ()) == 2
    orders = (inf, -inf, 1, -1) if of_matrices else (inf, -inf)
    return _reduce(call, SELECTING if order in orders else "", is_gate=False)


@register_rule("aten.amax", "aten.amin", "aten.any", "aten.all")
def amax(call: Call) -> Flow:
    """The largest or smallest value over axes; its label is the mean over the axes."""
    return _reduce(call, SELECTING, is_gate=False)


@register_rule("aten.max.dim", "aten.min.dim", "aten.median.dim", "aten.mode")
def max_dim(call: Call) -> tuple[Flow, ...]:
    """The largest, smallest, median or most frequent value over one axis, and its index."""
    return with_index(_reduce(call, SELECTING, is_gate=False))


@register_rule("aten.argmax", "aten.argmin")
def argmax(call: Call) -> Flow:
    """The index of the largest or smallest value: it has positions and no content."""
    flow = _reduce(call, SELECTING)
    return flow if flow.layout is None else Weights(layout=renumbered(flow.layout.axes))


@register_rule("aten.max", "aten.min", "aten.median")
def max_of_all(call: Call) -> Flow:
    """The largest, smallest or median value of a whole tensor."""
    return _reduce(call, SELECTING, is_gate=False)


def _reduce(call: Call, approximation: str, is_gate: bool | None = None) -> Flow:
    """A reduction that takes the mean label; `approximation` says why that is not exact."""
    source: Operand = call["self"]
    layout = source.traced_layout
    dims = dims_of(call.get("dim"), len(layout.axes))
    keep = call.get("keepdim", False)
    reduced = [axis for dim, axis in enumerate(layout.axes) if dim in dims]
    axes: list[Axis] = []
    for dim, axis in enumerate(layout.axes):
        if dim not in dims:
            axes.append(axis)
        elif keep:
            axes.append(_reduced_to_one(axis))
    if source.is_weights:
        return Weights(layout=renumbered(axes))
    if not any(has_positions(axis) for axis in reduced):
        kept = Layout(tuple(axes))
        mixed = relayout(source, kept, operation=Operation.CHANNEL_MIXING, is_gate=is_gate)
        return with_origins(mixed, statistics_of_channels(source))
    flow = aggregation(source, renumbered(axes), axes, reduced)
    flow = replace(flow, approximation=approximation)
    flow = flow if is_gate is None else after_nonlinear(flow, is_gate=is_gate)
    return with_origins(flow, reduced_origins(source, axes))


def _reduced_to_one(axis: Axis) -> Axis:
    """An axis after its reduction to size one."""
    return channel(1) if has_channels(axis) else ()


def dims_of(dim: int | list[int] | None, rank: int) -> set[int]:
    """The axes that a reduction goes over: all of them if `dim` is None or empty."""
    if dim is None or dim == []:
        return set(range(rank))
    return {d % rank for d in ([dim] if isinstance(dim, int) else dim)}
