"""Reductions over whole axes: aggregation over positions, channel mixing over channels."""

from dataclasses import replace

from labeltrace.call import Call
from labeltrace.combination import over
from labeltrace.contraction import aggregation
from labeltrace.flow import Flow, Operand, Operation, Weights
from labeltrace.layout import Axis, Layout, channel, has_channels, has_positions, natural
from labeltrace.registry import rule

SELECTING = "which position a value comes from depends on the values; their mean is taken"


@rule("aten.mean", "aten.sum", "aten.nansum", "aten.nanmean")
def mean(call: Call) -> Flow:
    """A sum or mean."""
    return _reduce(call, "")


@rule(
    "aten.linalg_vector_norm",
    "aten.logsumexp",
    "aten.norm",
    "aten.std",
    "aten.var",
    "aten.prod",
    "aten.linalg_norm",
)
def moment(call: Call) -> Flow:
    """A norm, spread or product over axes: every value takes part alike."""
    return _reduce(call, "", bounded=False)


@rule("aten.amax", "aten.amin", "aten.any", "aten.all")
def extreme(call: Call) -> Flow:
    """The largest or smallest value over axes, taken for the mean."""
    return _reduce(call, SELECTING, bounded=False)


@rule("aten.max.dim", "aten.min.dim", "aten.median.dim", "aten.mode")
def extreme_and_index(call: Call) -> tuple[Flow, ...]:
    """An extreme value over one axis, and where it was found."""
    flow = _reduce(call, SELECTING, bounded=False)
    layout = flow.layout
    return (flow, flow if layout is None else Weights(layout=layout))


@rule("aten.argmax", "aten.argmin")
def index_of_extreme(call: Call) -> Flow:
    """An index has positions and no content."""
    flow = _reduce(call, SELECTING)
    return flow if flow.layout is None else Weights(layout=natural(flow.layout.axes))


@rule("aten.max", "aten.min", "aten.median")
def extreme_of_all(call: Call) -> Flow:
    """The extreme value of a whole tensor."""
    return _reduce(call, SELECTING, bounded=False)


def _reduce(call: Call, selecting: str, bounded: bool | None = None) -> Flow:
    source: Operand = call["self"]
    layout = source.positions
    dims = _dims(call.get("dim"), len(layout.axes))
    keep = call.get("keepdim", False)
    gone = [axis for dim, axis in enumerate(layout.axes) if dim in dims]
    axes: list[Axis] = []
    for dim, axis in enumerate(layout.axes):
        if dim not in dims:
            axes.append(axis)
        elif keep:
            axes.append(reduced(axis))
    if source.is_weights:
        return Weights(layout=natural(axes))
    if not any(has_positions(axis) for axis in gone):
        kept = Layout(tuple(axes))
        return over(source, kept, operation=Operation.CHANNEL_MIXING, bounded=bounded)
    flow = aggregation(source, natural(axes), axes, gone)
    return replace(flow, approximation=selecting, bounded=bounded)


def reduced(axis: Axis) -> Axis:
    """What is left of an axis that was reduced to size one."""
    return channel(1) if has_channels(axis) else ()


def _dims(dim: int | list[int] | None, rank: int) -> set[int]:
    if dim is None or dim == []:
        return set(range(rank))
    return {d % rank for d in ([dim] if isinstance(dim, int) else dim)}
