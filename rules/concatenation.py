"""Concatenation: cat and stack.

Constants that are concatenated with positions carry the prior (contract, point 3). Along channels
the labels of the pieces are averaged by their share of the channels (point 7).
"""

from collections.abc import Sequence
from dataclasses import replace

from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Join, LabelView, Operand, Operation, Weights
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Size,
    align_axes,
    axis_size,
    axis_text,
    channel,
    has_channels,
    has_positions,
    is_dynamic,
    renumbered,
    replace_axis,
    unsqueeze,
)
from labeltrace.rule_api.call import Call, Shape
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import combine, relayout, with_layout
from labeltrace.rule_helpers.moved_positions import is_mixed
from labeltrace.rule_helpers.output_facts import with_lower_bound
from labeltrace.rule_helpers.written_parts import joined_elements


@register_rule("aten.cat", "aten.concat", "aten.concatenate")
def cat(call: Call) -> Flow:
    """Pieces one after another along an axis."""
    pieces: Sequence[Operand] = call["tensors"]
    dim = call["dim"] % len(call.output)
    return _joined(list(pieces), dim, call.output)


@register_rule("aten.stack")
def stack(call: Call) -> Flow:
    """Pieces one after another along a new axis."""
    dim = call["dim"] % len(call.output)
    pieces = [
        with_layout(piece, unsqueeze(piece.traced_layout, dim))
        if piece.traced
        else replace(piece, shape=(*piece.shape[:dim], 1, *piece.shape[dim:]))
        for piece in call["tensors"]
    ]
    return _joined(pieces, dim, call.output)


def _joined(pieces: list[Operand], dim: int, output: Shape) -> Flow:
    flow = _join(pieces, dim, output)
    return with_lower_bound(flow, min(piece.lower_bound for piece in pieces))


def _join(pieces: list[Operand], dim: int, output: Shape) -> Flow:
    """Pieces along axis `dim`, by what this axis is made of: weights, channels or positions."""
    traced = [piece for piece in pieces if piece.traced]
    if any(piece.is_weights for piece in traced):
        layout = traced[0].traced_layout
        axis = (replace(kind_along(traced, dim), size=output[dim]),)
        return Weights(layout=renumbered(replace_axis(layout, dim, axis).axes))
    axes = [piece.traced_layout.axes[dim] for piece in traced]
    if any(map(is_mixed, axes)) or (any(map(has_channels, axes)) and any(map(has_positions, axes))):
        return joined_elements(pieces, dim, output)
    if any(has_channels(axis) for axis in axes):
        return _join_channels(traced, axes, dim, output)
    kind = kind_along(traced, dim, output[dim])
    with_constants = len(traced) < len(pieces) and kind.kind is Kind.REPEATED
    if (
        with_constants
        or any(has_positions(axis) for axis in axes)
        or not _have_one_label(traced, dim, output)
    ):
        return join_positions(pieces, dim, output)
    layout = replace_axis(traced[0].traced_layout, dim, (kind,))
    return relayout(traced[0], layout, operation=Operation.RELAYOUT)


def kind_along(traced: Sequence[Operand], dim: int, size: Size = 1) -> Factor:
    """The factor of `size` that axis `dim` of the concatenated operands is.

    Its kind is the first one, in the order of `Kind`, that the operands have along the axis; a
    batch becomes positions. A new axis is one of channels, unless the operands already have an
    axis of channels.
    """
    kinds = {factor.kind for piece in traced for factor in piece.traced_layout.axes[dim]}
    other = any(has_channels(axis) for piece in traced for axis in piece.traced_layout.axes)
    new = Kind.REPEATED if other else Kind.CHANNEL
    kind = next((kind for kind in Kind if kind in kinds), new)
    return Factor(size, Kind.POSITION if kind is Kind.BATCH else kind)


def _have_one_label(traced: Sequence[Operand], dim: int, output: Shape) -> bool:
    """Whether all pieces have the same label along a new axis."""
    shape = (*output[:dim], 1, *output[dim + 1 :])
    return not combine(traced, shape, operation=Operation.RELAYOUT).labels


def _join_channels(traced: list[Operand], axes: list[Axis], dim: int, output: Shape) -> Flow:
    """Pieces along channels: averaged by their share of the channels; constants carry nothing.

    The axes 3 channel and 5 channel give an axis of 8 channel and the shares 3 : 5.
    """
    channels = channel(output[dim])
    flow = combine(
        [with_layout(piece, replace_axis(piece.traced_layout, dim, channels)) for piece in traced],
        output,
        operation=Operation.SPATIAL_AGGREGATION,
        shares=[axis_size(axis) for axis in axes],
    )
    # With one label for all pieces nothing is aggregated.
    return flow if flow.labels else replace(flow, operation=Operation.RELAYOUT)


def join_positions(pieces: list[Operand], dim: int, output: Shape) -> Flow:
    """Pieces along positions; those that do not come from the image carry the prior.

    A class token (1, 1, 8) and patches (B, 6 position, 8 channel) along axis 1 give
    (B, 7 position, 8 channel); the first of these positions carries the prior.

    Raises:
        LayoutError: constants are joined to samples.
    """
    traced = [piece for piece in pieces if piece.traced]
    alignment = align_axes([piece.traced_layout for piece in traced], output, concatenated=dim)
    views = iter(
        LabelView(piece, alignment.arrangement(index)) for index, piece in enumerate(traced)
    )
    layout = alignment.layout
    has_constants = len(traced) < len(pieces)
    if has_constants:
        for piece in traced:
            check_no_samples(piece.traced_layout.axes[dim])
    return Join(
        layout=layout,
        pieces=tuple(next(views) if piece.traced else None for piece in pieces),
        sizes=tuple(_size_along(piece, dim) for piece in pieces),
        dim=layout.axes[dim][0].field_dim,
    )


def check_no_samples(axis: Axis) -> None:
    """Check that constants may be joined to an axis.

    Raises:
        LayoutError: it has the samples of the batch, and a row of constants belongs to none.
    """
    if any(factor.kind is Kind.BATCH for factor in axis):
        raise LayoutError(
            f"constants are joined to the samples of the batch, {axis_text(axis)}: such a row "
            "belongs to no image, so it has no prior; leave it out of the model"
        )


def _size_along(piece: Operand, dim: int) -> Size:
    """The size of a piece along a dimension; -1 where it is dynamic and its labels have it."""
    size = piece.shape[dim]
    varies = piece.traced and has_positions(piece.traced_layout.axes[dim])
    return -1 if varies and is_dynamic(size) else size
