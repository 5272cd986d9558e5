"""Reductions over whole axes: aggregation over positions, channel mixing over channels."""

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
from labeltrace.rule_helpers.output_facts import after_nonlinear
from labeltrace.rule_helpers.weighted_sum import is_score, reason_mean_is_wrong, weighted_sum
from labeltrace.rules.pooling import with_index

SELECTING = "which position a value comes from depends on the values; their mean is taken"


@register_rule("aten.mean", "aten.sum", "aten.nansum", "aten.nanmean")
def mean(call: Call) -> Flow:
    """A sum or mean; of a stream times mixing weights, it mixes with them (point 4)."""
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
    """A spread or product over axes: every value takes part alike."""
    return _reduce(call, "", is_gate=False)


@register_rule("aten.linalg_vector_norm", "aten.norm", "aten.linalg_norm")
def norm(call: Call) -> Flow:
    """A norm over axes; some norms are the largest or smallest value, row sum or column sum."""
    order = call.get("ord", call.get("p"))
    of_matrices = call.operator == "aten.linalg_norm" and len(call.get("dim") or ()) == 2
    orders = (inf, -inf, 1, -1) if of_matrices else (inf, -inf)
    return _reduce(call, SELECTING if order in orders else "", is_gate=False)


@register_rule("aten.amax", "aten.amin", "aten.any", "aten.all")
def extreme(call: Call) -> Flow:
    """The largest or smallest value over axes, taken for the mean."""
    return _reduce(call, SELECTING, is_gate=False)


@register_rule("aten.max.dim", "aten.min.dim", "aten.median.dim", "aten.mode")
def extreme_and_index(call: Call) -> tuple[Flow, ...]:
    """An extreme value over one axis, and where it was found."""
    return with_index(_reduce(call, SELECTING, is_gate=False))


@register_rule("aten.argmax", "aten.argmin")
def index_of_extreme(call: Call) -> Flow:
    """An index has positions and no content."""
    flow = _reduce(call, SELECTING)
    return flow if flow.layout is None else Weights(layout=renumbered(flow.layout.axes))


@register_rule("aten.max", "aten.min", "aten.median")
def extreme_of_all(call: Call) -> Flow:
    """The extreme value of a whole tensor."""
    return _reduce(call, SELECTING, is_gate=False)


def _reduce(call: Call, selecting: str, is_gate: bool | None = None) -> Flow:
    source: Operand = call["self"]
    layout = source.traced_layout
    dims = dims_of(call.get("dim"), len(layout.axes))
    keep = call.get("keepdim", False)
    gone = [axis for dim, axis in enumerate(layout.axes) if dim in dims]
    axes: list[Axis] = []
    for dim, axis in enumerate(layout.axes):
        if dim not in dims:
            axes.append(axis)
        elif keep:
            axes.append(reduced(axis))
    if source.is_weights:
        return Weights(layout=renumbered(axes))
    if not any(has_positions(axis) for axis in gone):
        kept = Layout(tuple(axes))
        return relayout(source, kept, operation=Operation.CHANNEL_MIXING, is_gate=is_gate)
    flow = aggregation(source, renumbered(axes), axes, gone)
    flow = replace(flow, approximation=selecting)
    return flow if is_gate is None else after_nonlinear(flow, is_gate=is_gate)


def reduced(axis: Axis) -> Axis:
    """What is left of an axis that was reduced to size one."""
    return channel(1) if has_channels(axis) else ()


def dims_of(dim: int | list[int] | None, rank: int) -> set[int]:
    """The axes that a reduction goes over: without any they are all."""
    if dim is None or dim == []:
        return set(range(rank))
    return {d % rank for d in ([dim] if isinstance(dim, int) else dim)}
