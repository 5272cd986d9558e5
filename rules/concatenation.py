"""Joining: pieces one after the other, stacked, or padded.

What joins an axis of positions without coming from the image carries the prior (contract, point 3).
Pieces joined along channels are averaged by their share of the channels (point 7).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Join, LabelView, Operand, Operation, Pad, Weights
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    align_axes,
    arrange_positions,
    axis_size,
    axis_text,
    batch_slot,
    channel,
    has_channels,
    has_positions,
    is_dynamic,
    pure_positions,
    renumbered,
    replace_axis,
    unsqueeze,
)
from labeltrace.rule_api.call import Call, Shape
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import combine, relayout, with_layout
from labeltrace.rule_helpers.output_facts import with_lower_bound


@register_rule("aten.cat", "aten.concat", "aten.concatenate")
def concatenation(call: Call) -> Flow:
    """Pieces one after the other along an axis."""
    pieces: Sequence[Operand] = call["tensors"]
    dim = call["dim"] % len(call.output)
    return _joined(list(pieces), dim, call.output)


@register_rule("aten.stack")
def stack(call: Call) -> Flow:
    """Pieces one after the other along a new axis."""
    dim = call["dim"] % len(call.output)
    pieces = [
        with_layout(piece, unsqueeze(piece.traced_layout, dim))
        if piece.traced
        else replace(piece, shape=(*piece.shape[:dim], 1, *piece.shape[dim:]))
        for piece in call["tensors"]
    ]
    return _joined(pieces, dim, call.output)


@register_rule("aten.pad", "aten.constant_pad_nd")
def padding(call: Call) -> Flow:
    """New indices at the ends of axes, as :func:`torch.nn.functional.pad` counts them."""
    source: Operand = call["self"]
    flow = _padded(source, call["pad"], call.get("mode", "constant"), call.output)
    return with_lower_bound(flow, min(source.lower_bound, call.get("value", 0)))


@register_rule("aten.reflection_pad1d", "aten.reflection_pad2d", "aten.reflection_pad3d")
def reflection(call: Call) -> Flow:
    """Ends that mirror what they adjoin."""
    return _padded(call["self"], call["padding"], "reflect", call.output)


@register_rule("aten.replication_pad1d", "aten.replication_pad2d", "aten.replication_pad3d")
def replication(call: Call) -> Flow:
    """Ends that repeat the last index."""
    return _padded(call["self"], call["padding"], "replicate", call.output)


def _joined(pieces: list[Operand], dim: int, output: Shape) -> Flow:
    flow = _side_by_side(pieces, dim, output)
    return with_lower_bound(flow, min(piece.lower_bound for piece in pieces))


def _side_by_side(pieces: list[Operand], dim: int, output: Shape) -> Flow:
    traced = [piece for piece in pieces if piece.traced]
    if any(piece.is_weights for piece in traced):
        layout = traced[0].traced_layout
        axis = (replace(_kind_of(traced, dim), size=output[dim]),)
        return Weights(layout=renumbered(replace_axis(layout, dim, axis).axes))
    axes = [piece.traced_layout.axes[dim] for piece in traced]
    if any(has_channels(axis) for axis in axes):
        return _joined_channels(traced, axes, dim, output)
    kind = _kind_of(traced, dim, output[dim])
    beside_constants = len(traced) < len(pieces) and kind.kind is Kind.REPEATED
    if (
        beside_constants
        or any(has_positions(axis) for axis in axes)
        or not _one_label(traced, dim, output)
    ):
        return _joined_positions(pieces, dim, output)
    layout = replace_axis(traced[0].traced_layout, dim, (kind,))
    return relayout(traced[0], layout, operation=Operation.RELAYOUT)


def _kind_of(traced: Sequence[Operand], dim: int, size: int = 1) -> Factor:
    """The weightiest kind along an axis of several operands.

    A new axis is one of channels, unless the operands have such an axis already.
    """
    kinds = {factor.kind for piece in traced for factor in piece.traced_layout.axes[dim]}
    other = any(has_channels(axis) for piece in traced for axis in piece.traced_layout.axes)
    new = Kind.REPEATED if other else Kind.CHANNEL
    kind = next((kind for kind in Kind if kind in kinds), new)
    return Factor(size, Kind.POSITION if kind is Kind.BATCH else kind)


def _one_label(traced: Sequence[Operand], dim: int, output: Shape) -> bool:
    """Whether all pieces have the same label along a new axis."""
    shape = (*output[:dim], 1, *output[dim + 1 :])
    return not combine(traced, shape, operation=Operation.RELAYOUT).labels


def _joined_channels(traced: list[Operand], axes: list[Axis], dim: int, output: Shape) -> Flow:
    """Pieces along channels: averaged by their share; constants carry nothing."""
    for axis in axes:
        if has_positions(axis):
            raise LayoutError(f"positions are joined to channels along an axis: {axis_text(axis)}")
    channels = channel(output[dim])
    flow = combine(
        [with_layout(piece, replace_axis(piece.traced_layout, dim, channels)) for piece in traced],
        output,
        operation=Operation.SPATIAL_AGGREGATION,
        shares=[axis_size(axis) for axis in axes],
    )
    # One label for all of them: nothing is aggregated.
    return flow if flow.labels else replace(flow, operation=Operation.RELAYOUT)


def _joined_positions(pieces: list[Operand], dim: int, output: Shape) -> Flow:
    """Pieces along positions; those that do not come from the image carry the prior."""
    traced = [piece for piece in pieces if piece.traced]
    for piece in traced:
        axis = piece.traced_layout.axes[dim]
        if has_positions(axis) and not pure_positions(axis):
            raise LayoutError(f"an axis whose positions are partly repeated: {axis_text(axis)}")
    alignment = align_axes([piece.traced_layout for piece in traced], output, joined=dim)
    fields = iter(
        LabelView(piece, alignment.arrangement(index)) for index, piece in enumerate(traced)
    )
    layout = alignment.layout
    constants = len(traced) < len(pieces)
    sizes = [-1 if is_dynamic(piece.shape[dim]) else piece.shape[dim] for piece in pieces]
    if any(
        size == -1 and not (piece.traced and has_positions(piece.traced_layout.axes[dim]))
        for piece, size in zip(pieces, sizes, strict=True)
    ):
        raise LayoutError("as many copies as the batch is large are joined to positions")
    return Join(
        layout=layout,
        pieces=tuple(next(fields) if piece.traced else None for piece in pieces),
        sizes=tuple(sizes),
        dim=layout.axes[dim][0].field_dim,
        batch_dim=batch_slot(layout) if constants else 0,
    )


def _beside_constants(source: Operand, pairs: Mapping[int, tuple[int, int]]) -> list[int]:
    """The axes of one label throughout, channels apart, that get constants at their ends."""
    dims = [
        dim
        for dim, widths in pairs.items()
        if max(widths) > 0
        and not has_positions(source.traced_layout.axes[dim])
        and _kind_of([source], dim).kind is Kind.REPEATED
    ]
    for dim in dims:
        if source.shape[dim] > 1 and len(pairs) > 1:
            raise LayoutError(
                f"several axes are padded at once, one of which repeats a label: axis {dim} of "
                f"{source.layout}; pad them one after the other"
            )
    return dims


def _between_constants(source: Operand, pairs: Mapping[int, tuple[int, int]]) -> list[Operand]:
    """A tensor and the constants that padding puts before and behind it along its only axis."""
    ((dim, widths),) = pairs.items()
    before, behind = (
        Operand(("pad",), (*source.shape[:dim], max(width, 0), *source.shape[dim + 1 :]))
        for width in widths
    )
    left = source.shape[dim] + sum(min(width, 0) for width in widths)
    kept = replace_axis(source.traced_layout, dim, (Factor(left, Kind.REPEATED),))
    return [piece for piece in (before, with_layout(source, kept), behind) if piece.shape[dim]]


def _padded(source: Operand, widths: Sequence[int], mode: str, output: Shape) -> Flow:
    layout = source.traced_layout
    rank = len(output)
    pairs = {
        rank - 1 - index: (widths[2 * index], widths[2 * index + 1])
        for index in range(len(widths) // 2)
    }
    pairs = {dim: pair for dim, pair in pairs.items() if pair != (0, 0)}
    varying = [dim for dim in pairs if has_positions(layout.axes[dim])]
    for dim in varying:
        if not pure_positions(layout.axes[dim]):
            raise LayoutError(
                f"padding of an axis of positions and channels: {axis_text(layout.axes[dim])}"
            )
    if mode == "constant":
        beside = _beside_constants(source, pairs)
        if any(source.shape[dim] > 1 for dim in beside):  # then it is the only one
            return _joined_positions(_between_constants(source, pairs), beside[0], output)
        varying += beside
    for dim in pairs:
        if dim not in varying:
            layout = replace_axis(layout, dim, (_kind_of([source], dim, output[dim]),))
    if not varying:
        return relayout(source, layout, operation=Operation.RELAYOUT)
    arrangement, dims, fresh = arrange_positions(layout, varying)
    for dim in varying:
        fresh = replace_axis(fresh, dim, (Factor(output[dim], Kind.POSITION),))
    fresh = renumbered(fresh.axes)
    if source.is_weights:
        return Weights(layout=fresh)
    padded = {dims[dim]: pairs[dim] for dim in varying}
    return Pad(
        layout=fresh,
        source=LabelView(source, arrangement),
        widths=tuple(padded.get(index, (0, 0)) for index in range(len(arrangement.groups))),
        mode="prior" if mode == "constant" else mode,
        batch_dim=batch_slot(fresh) if mode == "constant" else 0,
    )
