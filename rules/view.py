"""Views: axes are split, merged, reordered or repeated.

Labels stay where they are in their field; only the layout of the axes changes.
"""

from labeltrace.errors import LayoutError
from labeltrace.flow import Constant, Flow, LabelView, Operand, Operation, Rearrange
from labeltrace.layout import (
    Layout,
    Size,
    arrange,
    expand,
    has_positions,
    permute,
    positions,
    renumbered,
    unsqueeze,
    view,
)
from labeltrace.rule_api.call import Call, listed
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import relayout, with_layout
from labeltrace.rules.repetition import copied, repeated


@register_rule(
    "aten.view.default",
    "aten.reshape",
    "aten._unsafe_view",
    "aten._reshape_alias",
    "aten.flatten",
    "aten.unflatten",
    "aten.squeeze",
    "aten.view_as",
    "aten.reshape_as",
    "aten._reshape_copy",
    "aten.ravel",
)
def reshape(call: Call) -> Flow:
    """The same values in the same order, in another shape."""
    source: Operand = call["self"]
    if not source.traced:  # view_as and reshape_as read only the shape of the other operand
        return Constant()
    return reshaped(source, call.output)


def reshaped(source: Operand, shape: tuple[Size, ...]) -> Flow:
    """`source.reshape(shape)`.

    If the order of the positions in the field does not allow the view, they are first put in the
    order of the axes, in a new field.
    """
    layout = source.traced_layout
    try:
        return _relayout(source, view(layout, shape))
    except LayoutError:
        fresh = renumbered(layout.axes)
        moved = view(fresh, shape)  # raises again where no order of positions helps
    if not source.labeled:
        return relayout(source, moved, operation=Operation.RELAYOUT)
    groups = [(factor,) for axis in layout.axes for factor in positions(axis)]
    arrangement = arrange(layout, groups)
    return Rearrange(
        layout=moved, field_shape=arrangement.shape, source=LabelView(source, arrangement)
    )


@register_rule("aten.permute", "aten.permute_copy")
def permute_axes(call: Call) -> Flow:
    """Axes in another order."""
    source: Operand = call["self"]
    rank = len(source.shape)
    return _relayout(source, permute(source.traced_layout, [dim % rank for dim in call["dims"]]))


@register_rule("aten.numpy_T")
def numpy_t(call: Call) -> Flow:
    """All axes in the opposite order."""
    source: Operand = call["self"]
    return _relayout(source, permute(source.traced_layout, range(len(source.shape))[::-1]))


@register_rule("aten.transpose", "aten.t", "aten.swapaxes", "aten.swapdims", "aten.mT")
def transpose_axes(call: Call) -> Flow:
    """Two axes swapped; without arguments the last two."""
    source: Operand = call["self"]
    rank = len(source.shape)
    first = call.get("dim0", call.get("axis0", -2)) % rank
    second = call.get("dim1", call.get("axis1", -1)) % rank
    dims = list(range(rank))
    dims[first], dims[second] = dims[second], dims[first]
    return _relayout(source, permute(source.traced_layout, dims))


@register_rule("aten.movedim", "aten.moveaxis")
def movedim(call: Call) -> Flow:
    """Some axes moved to other places; the others keep their order."""
    source: Operand = call["self"]
    rank = len(source.shape)
    origins, targets = ([d % rank for d in listed(call[n])] for n in ("source", "destination"))
    rest = [dim for dim in range(rank) if dim not in origins]
    placed = dict(zip(targets, origins, strict=True))
    order = [placed[dim] if dim in placed else rest.pop(0) for dim in range(rank)]
    return _relayout(source, permute(source.traced_layout, order))


@register_rule("aten.unsqueeze")
def unsqueeze_axis(call: Call) -> Flow:
    """A new axis of size one."""
    source: Operand = call["self"]
    return _relayout(source, unsqueeze(source.traced_layout, call["dim"] % (len(source.shape) + 1)))


@register_rule("aten.expand", "aten.expand_as", "aten.broadcast_to")
def expand_axes(call: Call) -> Flow:
    """Axes of size one repeated."""
    source: Operand = call["self"]
    if not source.traced:  # expand_as reads only the shape of the other operand
        return Constant()
    return repeated(source, expand(source.traced_layout, call.output))


@register_rule("aten.broadcast_tensors")
def broadcast_tensors(call: Call) -> tuple[Flow, ...]:
    """Several tensors, each repeated along its axes of size one."""
    return tuple(
        _relayout(one, expand(one.traced_layout, shape)) if one.traced else Constant()
        for one, shape in zip(call["tensors"], call.outputs, strict=True)
    )


@register_rule("aten.pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Flow:
    """(*, C, H r, W r) to (*, C r r, H, W): positions in a block join the channel axis."""
    source: Operand = call["self"]
    factor: int = call["downscale_factor"]
    *rest, channels, rows, columns = source.shape
    split = (*rest, channels, rows // factor, factor, columns // factor, factor)
    order = (*range(len(rest)), *(len(rest) + dim for dim in (0, 2, 4, 1, 3)))
    return _relayout(source, view(permute(view(source.traced_layout, split), order), call.output))


@register_rule("aten.pixel_shuffle")
def pixel_shuffle(call: Call) -> Flow:
    """(*, C r r, H, W) to (*, C, H r, W r): each position becomes a block of r by r positions.

    The positions of a block are copies of one label, or, if the channel axis has positions (after
    `pixel_unshuffle`), those positions.
    """
    source: Operand = call["self"]
    factor: int = call["upscale_factor"]
    *rest, channels, rows, columns = source.shape
    first = len(rest)
    split = (*rest, channels // factor**2, factor, factor, rows, columns)
    layout = view(source.traced_layout, split)
    order, sizes, counts = [*range(first + 1)], [*split[: first + 1]], [1] * (first + 1)
    for dim, inside in ((first + 3, first + 1), (first + 4, first + 2)):
        varies = has_positions(layout.axes[inside])
        order += [dim, inside] if varies else [dim]
        sizes.append(split[dim] * factor if varies else split[dim])
        counts.append(1 if varies else factor)
    gathered = view(Layout(tuple(layout.axes[dim] for dim in order)), sizes)
    return copied(with_layout(source, gathered), counts, interleave=True)


def _relayout(source: Operand, layout: Layout) -> Flow:
    return relayout(source, layout, operation=Operation.RELAYOUT)
