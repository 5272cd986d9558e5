"""Steps that users write: for rules that no contraction, view or average can express."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import Tensor

from labeltrace.errors import LayoutError
from labeltrace.flow import Aggregate, Custom, Flow, LabelView, Operand, Operation
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    arrange,
    arrange_by_axis,
    axis_text,
    channel,
    has_channels,
    has_positions,
    renumbered,
    shape_text,
)
from labeltrace.rule_api.call import Shape
from labeltrace.rule_helpers.elementwise import relayout


def custom_step(
    function: Callable[..., Tensor],
    source: Operand,
    output: Shape,
    *,
    channels: Collection[int],
    tensors: Collection[Operand] = (),
    operation: Operation = Operation.SPATIAL_MIXING,
    approximation: str = "",
) -> Custom:
    """A label step that runs `function(labels, *tensors)`.

    Args:
        function: gets the labels of `source`, float32, with a dimension for each of its axes that
            has positions, in their order, and the K sources last; then the values of `tensors`. It
            returns the labels of the output in the same form. It runs without gradient and
            autocast, on the model's device; rows must sum to one.
        source: the operand whose labels move.
        output: the output's shape, `call.output`.
        channels: the axes of the output that have channels; all others are positions.
        tensors: operands whose values the function reads: arguments of the call, inner values or
            parameters of a module.
        operation: the class of the step in Table 10 of the paper.
        approximation: why the step is not exact; empty if it is.

    Raises:
        LayoutError: an axis of `source` has both positions and channels.
    """
    layout = source.traced_layout
    for dim, axis in enumerate(layout.axes):
        if has_positions(axis) and has_channels(axis):
            raise LayoutError(
                f"axis {dim} of the input mixes positions and channels ({axis_text(axis)}); "
                "reshape it first, custom_step needs one or the other per axis"
            )
    places = {dim % len(output) for dim in channels}
    axes: list[Axis] = []
    for dim, size in enumerate(output):
        kept = layout.axes[dim] if dim < len(layout.axes) else ()
        if dim in places:
            axes.append(channel(size))
        elif dim == 0 and has_positions(kept) and layout.shape[0] == size:
            axes.append(kept)  # the batch stays the batch
        else:
            axes.append((Factor(size, Kind.POSITION),))
    return Custom(
        operation=operation,
        layout=renumbered(axes),
        field_shape=tuple(size for dim, size in enumerate(output) if dim not in places),
        source=LabelView(source, arrange_by_axis(layout)),
        function=function,
        tensors=tuple(tensors),
        approximation=approximation,
    )


def even_mix(
    source: Operand, output: Shape, *, channels: Collection[int], approximation: str = ""
) -> Flow:
    """Every position of the output is an equal mix of all the positions of its sample.

    It is a first approximation of an operator that moves positions in a way no rule states yet.

    Args:
        source: the operand whose labels are averaged, or mixing weights, which stay weights.
        output: the output's shape, `call.output`; the batch is the first axis of its size.
        channels: the axes of the output that have channels; all others are positions.
        approximation: why the step is not exact; empty if it is.

    Raises:
        LayoutError: no axis of `source` has the batch as a factor, or no axis of `output` is it.
    """
    factors = [
        factor for axis in source.traced_layout.axes for factor in axis if factor.is_position
    ]
    batch = [factor for factor in factors if factor.kind is Kind.BATCH]
    if not batch or batch[0].size not in output:
        raise LayoutError(
            f"even_mix finds no batch: {source.traced_layout} becomes {shape_text(output)}; the "
            "batch must be a factor of the operand and an axis of the output"
        )
    places = {dim % len(output) for dim in channels}
    axes: list[Axis] = [
        channel(size) if dim in places else (Factor(size, Kind.REPEATED),)
        for dim, size in enumerate(output)
    ]
    axes[output.index(batch[0].size)] = (batch[0],)
    rest = [factor for factor in factors if factor.kind is not Kind.BATCH]
    if not rest or source.is_weights:
        operation = Operation.SPATIAL_AGGREGATION if rest else Operation.CHANNEL_MIXING
        kept = Layout(tuple(axes)) if source.labeled else renumbered(axes)
        return relayout(source, kept, operation=operation, approximation=approximation)
    groups = [batch, *([factor] for factor in rest)]
    return Aggregate(
        layout=renumbered(axes),
        source=LabelView(source, arrange(source.traced_layout, groups)),
        count=len(rest),
        approximation=approximation,
    )
