"""Repetition: indices of an axis more than once."""

from labeltrace.call import Call
from labeltrace.combination import over
from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Operand, Operation
from labeltrace.layout import Axis, Factor, Kind, Layout, has_channels, has_positions
from labeltrace.registry import rule


@rule("aten.repeat", "aten.tile")
def repeated(call: Call) -> Flow:
    """The whole activation several times along its axes."""
    source: Operand = call["self"]
    counts: list[int] = call["repeats" if "repeats" in call.arguments else "dims"]
    rank = len(call.output)
    counts = [1] * (rank - len(counts)) + list(counts)
    axes = ((),) * (rank - len(source.shape)) + source.positions.axes
    layout = Layout(
        tuple((*_copies(axis, count), *axis) for axis, count in zip(axes, counts, strict=True))
    )
    return over(source, layout, operation=Operation.RELAYOUT)


@rule("aten.repeat_interleave.self_int")
def repeated_each(call: Call) -> Flow:
    """Every index of an axis several times, next to one another."""
    source: Operand = call["self"]
    if call.get("dim") is None or not isinstance(call["repeats"], int):
        raise LayoutError(f"{call.operator} of a flattened activation: {source.layout}")
    dim = call["dim"] % len(source.shape)
    axes = list(source.positions.axes)
    axes[dim] = (*axes[dim], *_copies(axes[dim], call["repeats"]))
    return over(source, Layout(tuple(axes)), operation=Operation.RELAYOUT)


def _copies(axis: Axis, count: int) -> Axis:
    """A factor for ``count`` copies of an axis: of channels if the axis is."""
    if count == 1:
        return ()
    channels = has_channels(axis) and not has_positions(axis)
    return (Factor(count, Kind.CHANNEL if channels else Kind.REPEATED),)
