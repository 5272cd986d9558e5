"""Repetition: indices of an axis more than once."""

from collections.abc import Sequence

from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, LabelView, Operand, Operation, Repeat, Weights
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    arrange_positions,
    axis_size,
    has_channels,
    has_positions,
    pure_positions,
    renumbered,
    replace_axis,
)
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import relayout, with_layout


@register_rule("aten.repeat", "aten.tile")
def repeat(call: Call) -> Flow:
    """The whole activation several times along its axes."""
    source: Operand = call["self"]
    counts: list[int] = call["repeats" if "repeats" in call.arguments else "dims"]
    rank = len(call.output)
    counts = [1] * (rank - len(counts)) + list(counts)
    axes = ((),) * (rank - len(source.shape)) + source.traced_layout.axes
    return copied(with_layout(source, Layout(axes)), counts, interleave=False)


@register_rule("aten.repeat_interleave.self_int")
def repeat_interleave(call: Call) -> Flow:
    """Every index of an axis several times, next to one another."""
    source: Operand = call["self"]
    if call.get("dim") is None or not isinstance(call["repeats"], int):
        raise LayoutError(
            f"{call.operator} of a flattened activation: {source.layout}; give it one number and "
            "the dim to repeat along"
        )
    dim = call["dim"] % len(source.shape)
    counts = [call["repeats"] if axis == dim else 1 for axis in range(len(source.shape))]
    return copied(source, counts, interleave=True)


def copied(source: Operand, counts: Sequence[int], *, interleave: bool) -> Flow:
    """Positions in new places; anything else through another layout."""
    axes = list(source.traced_layout.axes)
    moved: list[int] = []
    for dim, count in enumerate(counts):
        batch = any(factor.kind is Kind.BATCH for factor in axes[dim])  # stays where it is
        if count != 1 and pure_positions(axes[dim]) and not batch:
            moved.append(dim)
        elif count != 1:
            copies = _copies(axes[dim], count)
            axes[dim] = (*axes[dim], *copies) if interleave else (*copies, *axes[dim])
    layout = Layout(tuple(axes))
    if not moved:
        return relayout(source, layout, operation=Operation.RELAYOUT)
    arrangement, index, fresh = arrange_positions(layout, moved)
    for dim in moved:
        size = axis_size(axes[dim]) * counts[dim]
        fresh = replace_axis(fresh, dim, (Factor(size, Kind.POSITION),))
    fresh = renumbered(fresh.axes)
    if source.is_weights:
        return Weights(layout=fresh)
    by_place = {index[dim]: counts[dim] for dim in moved}
    return Repeat(
        layout=fresh,
        source=LabelView(source, arrangement),
        counts=tuple(by_place.get(place, 1) for place in range(len(arrangement.groups))),
        interleave=interleave,
    )


def _copies(axis: Axis, count: int) -> Axis:
    """A factor for ``count`` copies of an axis: of channels if the axis is."""
    channels = has_channels(axis) and not has_positions(axis)
    return (Factor(count, Kind.CHANNEL if channels else Kind.REPEATED),)
