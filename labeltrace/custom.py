"""Steps of the user's own: for rules that no contraction, view or average can express."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import Tensor

from labeltrace.call import Shape
from labeltrace.errors import LayoutError
from labeltrace.flow import Custom, Labels, Operand, Operation
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    arrange_by_axis,
    channel,
    has_channels,
    has_positions,
    natural,
)


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
    """A label step that runs ``function(labels, *tensors)``.

    Args:
        function: gets the labels of ``source``, float32, with a dimension for each of its axes that
            has positions, in their order, and K last; then the values of ``tensors``.  It returns
            the labels of the output in the same form.  It runs without gradient and autocast, on
            the model's device; rows must sum to one.
        source: the operand whose labels move.
        output: the output's shape, ``call.output``.
        channels: the axes of the output that have channels; all others are positions.
        tensors: operands whose values the function reads: arguments of the call, inner values or
            parameters of a module.
        operation: what the step is, by Table 10.
        approximation: why the step is not exact; empty if it is.

    Raises:
        LayoutError: an axis of ``source`` has positions and channels both.
    """
    layout = source.positions
    for axis in layout.axes:
        if has_positions(axis) and has_channels(axis):
            raise LayoutError(f"a custom step cannot take positions and channels apart: {layout}")
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
        layout=natural(axes),
        stored=tuple(size for dim, size in enumerate(output) if dim not in places),
        source=Labels(source, arrange_by_axis(layout)),
        function=function,
        tensors=tuple(tensors),
        approximation=approximation,
    )
