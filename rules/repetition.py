"""Repetition: repeat, tile and repeat_interleave.

Positions are copied to new positions. Along other axes no label changes.
"""

from collections.abc import Sequence

from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Operand, Operation, Repeat, Weights
from labeltrace.layout import (
    Axis,
    BatchSize,
    Factor,
    Kind,
    Layout,
    Size,
    axis_size,
    has_channels,
    has_positions,
    pure_positions,
)
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import relayout, with_layout
from labeltrace.rule_helpers.moved_positions import moved_labels, resized_positions
from labeltrace.rule_helpers.output_facts import with_origins
from labeltrace.rule_helpers.own_statistics import statistics_only


@register_rule("aten.repeat", "aten.tile")
def repeat(call: Call) -> Flow:
    """The whole activation several times along its axes: `0 1 0 1`."""
    source: Operand = call["self"]
    counts: Sequence[Size] = call["repeats" if "repeats" in call.arguments else "dims"]
    rank = len(call.output)
    counts = (*[1] * (rank - len(counts)), *counts)
    axes = ((),) * (rank - len(source.shape)) + source.traced_layout.axes
    return copied(with_layout(source, Layout(axes)), counts, interleave=False)


@register_rule("aten.repeat_interleave.self_int")
def repeat_interleave(call: Call) -> Flow:
    """Every index of an axis several times: `0 0 1 1`."""
    source: Operand = call["self"]
    if call.get("dim") is None or not isinstance(call["repeats"], (int, BatchSize)):
        raise LayoutError(
            f"{call.operator} of a flattened activation: {source.layout}; give it one number and "
            "the dim to repeat along"
        )
    dim = call["dim"] % len(source.shape)
    counts = [call["repeats"] if axis == dim else 1 for axis in range(len(source.shape))]
    return copied(source, counts, interleave=True)


def copied(source: Operand, counts: Sequence[Size], *, interleave: bool) -> Flow:
    """Each axis `counts` times: positions become new positions, other axes have another layout.

    (B, 2 position, 8 channel) with the counts (1, 3, 2) becomes (B, 6 position, 2 channel *
    8 channel), where the first axis is repeated by a label step and the second one by its layout.
    """
    axes = list(source.traced_layout.axes)
    sizes: dict[int, Size] = {}
    for dim, count in enumerate(counts):
        if count != 1 and pure_positions(axes[dim]):
            sizes[dim] = axis_size(axes[dim]) * count
        elif count != 1:
            copies = _copies(axes[dim], count)
            axes[dim] = (*axes[dim], *copies) if interleave else (*copies, *axes[dim])
    layout = Layout(tuple(axes))
    if not sizes:
        return repeated(source, layout)
    result = resized_positions(layout, sizes)
    if source.is_weights:
        return Weights(layout=result)
    moved = moved_labels(with_layout(source, layout), sizes)
    return Repeat(
        layout=result,
        source=moved.view,
        counts=moved.by_dimension({dim: counts[dim] for dim in sizes}, 1),
        interleave=interleave,
    )


def repeated(source: Operand, layout: Layout) -> Flow:
    """Values that are repeated along axes without positions of their own."""
    flow = relayout(source, layout, operation=Operation.RELAYOUT)
    if not source.labeled or flow.output_facts.origins:
        return flow
    return with_origins(flow, statistics_only(source.origins))


def _copies(axis: Axis, count: Size) -> Axis:
    """A factor for `count` copies of an axis: of channels if the axis is made of channels."""
    channels = has_channels(axis) and not has_positions(axis)
    return (Factor(count, Kind.CHANNEL if channels else Kind.REPEATED),)
