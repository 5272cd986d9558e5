"""Indices that are tensors: advanced indexing, gather, masks.

They are read when the model runs, and labels are moved by them (contract, point 9): where an index
comes from does not matter. Along channels nothing moves; an index that differs from channel to
channel mixes, each channel counting the same.
"""

from collections.abc import Collection, Sequence
from math import prod

from labeltrace.errors import LayoutError
from labeltrace.flow import Constant, Flow, Operand
from labeltrace.layout import Axis, Factor, Kind, has_channels, has_positions, pure_positions
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import carry
from labeltrace.rule_helpers.picked_elements import (
    axis_after_index,
    index_places,
    picked,
    without_positions,
)
from labeltrace.rules.indexing import taken


@register_rule("aten.index_select")
def index_select(call: Call) -> Flow:
    """Indices of one axis."""
    source: Operand = call["self"]
    if not source.traced:
        return looked_up(call, call["index"])
    dim = call["dim"] % len(source.shape)
    return _along_axes(source, [dim], call["index"], call.output[dim : dim + 1], call.output)


@register_rule("aten.index")
def index(call: Call) -> Flow:
    """`activation[:, index, mask]`: advanced indexing with any number of tensors."""
    source: Operand = call["self"]
    indices: Sequence[Operand | None] = call["indices"]
    tensors = [one for one in indices if one is not None]
    if not source.traced:
        return looked_up(call, next(one for one in tensors if one.traced))
    places = index_places(len(source.shape), indices)
    axes = source.traced_layout.axes
    touched = [dim for dim in range(len(axes)) if dim not in places]
    start = next(place for place, dim in enumerate(places) if dim is None) if None in places else 0
    sizes = [size for size, dim in zip(call.output, places, strict=True) if dim is None]
    if not any(has_positions(axes[dim]) for dim in touched):
        channels = any(has_channels(axes[dim]) for dim in touched)
        kind = Kind.CHANNEL if channels else Kind.REPEATED
    else:
        kind = Kind.POSITION
    after = [
        axes[dim] if dim is not None else (Factor(size, kind),)
        for size, dim in zip(call.output, places, strict=True)
    ]
    if kind is not Kind.POSITION:
        return without_positions(source, after)
    new = range(start, start + len(sizes))
    return picked(source, after, "index", (tuple(indices),), whole=touched, whole_after=new)


@register_rule("aten.gather")
def gather(call: Call) -> Flow:
    """For each element of the result the element of the source at an index along one axis."""
    source, index = call["self"], call["index"]
    if not source.traced:
        return looked_up(call, index)
    dim = call["dim"] % max(1, len(source.shape))
    axes = source.traced_layout.axes
    after = [axis_after_index(axis, size) for axis, size in zip(axes, call.output, strict=True)]
    others = [d for d in range(len(axes)) if d != dim]
    if not has_positions(axes[dim]) and all(call.output[d] == source.shape[d] for d in others):
        return without_positions(source, [*axes[:dim], after[dim], *axes[dim + 1 :]])
    whole = range(len(axes))
    return picked(source, after, "gather", (dim, index), whole=whole, whole_after=whole)


@register_rule("aten.take_along_dim")
def take_along_dim(call: Call) -> Flow:
    """As `gather`, with an index that is broadcast."""
    source, index, dim = call["self"], call["indices"], call.get("dim")
    if not source.traced:
        return looked_up(call, index)
    axes = source.traced_layout.axes
    if dim is None:  # of the flattened tensor
        after: list[Axis] = [(Factor(size, Kind.POSITION),) for size in call.output]
        whole = range(len(axes))
        return picked(source, after, "take_along_dim", (index, None), whole=whole, whole_after=(0,))
    dim %= len(axes)
    touched = [d for d in range(len(axes)) if d == dim or index.shape[d] != 1]
    after = [
        axis_after_index(axis, call.output[d]) if d in touched else axis
        for d, axis in enumerate(axes)
    ]
    others = [d for d in range(len(axes)) if d != dim]
    if not has_positions(axes[dim]) and all(call.output[d] == source.shape[d] for d in others):
        return without_positions(source, [*axes[:dim], after[dim], *axes[dim + 1 :]])
    arguments = (index, dim)
    return picked(source, after, "take_along_dim", arguments, whole=touched, whole_after=touched)


@register_rule("aten.masked_select")
def masked_select(call: Call) -> Flow:
    """The elements where a mask holds, in one axis.

    Where the mask is the same for all channels, and these are the last axes, it chooses positions
    with all their channels.
    """
    source, mask = call["self"], call["mask"]
    if not source.traced or len(mask.shape) > len(source.shape):
        raise LayoutError("a mask selects from a constant, or repeats the activation")
    axes = source.traced_layout.axes
    tail = _equal_last_axes(mask, axes)
    inner = prod(source.shape[len(axes) - tail :])
    channels = any(map(has_channels, axes[len(axes) - tail :]))
    kind = Kind.CHANNEL if channels else Kind.REPEATED
    chosen = call.output[0] // inner if inner else 0
    after = (Factor(chosen, Kind.POSITION), *((Factor(inner, kind),) if inner > 1 else ()))
    whole = range(len(axes) - tail)
    return picked(source, [after], "masked_select", (mask,), whole=whole, whole_after=(0,))


@register_rule("aten.repeat_interleave.self_Tensor")
def repeat_interleave(call: Call) -> Flow:
    """Each index of an axis as often as a tensor says."""
    source: Operand = call["self"]
    if not source.traced:
        raise LayoutError("how often the entries of a constant are repeated comes from the image")
    axes = list(source.traced_layout.axes)
    arguments = (call["repeats"], call.get("dim"))
    if call.get("dim") is None:
        after: list[Axis] = [(Factor(call.output[0], Kind.POSITION),)]
        whole: Collection[int] = range(len(axes))
        return picked(source, after, "repeat_interleave", arguments, whole=whole, whole_after=(0,))
    dim = call["dim"] % len(source.shape)
    after = [*axes[:dim], axis_after_index(axes[dim], call.output[dim]), *axes[dim + 1 :]]
    if not has_positions(axes[dim]):
        return without_positions(source, after)
    return picked(source, after, "repeat_interleave", arguments, whole=[dim], whole_after=[dim])


@register_rule(
    "aten.nonzero",
    "aten.nonzero_numpy",
    "aten.nonzero_static",
    "aten.argwhere",
    "aten.argsort",
    "aten.where.default",
    "aten.multinomial",
    "aten.bincount",
    "aten.repeat_interleave.Tensor",
)
def indices_alone(call: Call) -> Flow:
    """Indices: they say where, not what. They carry no label; whoever is indexed by them moves."""
    return Constant()


@register_rule("aten.searchsorted", "aten.bucketize")
def bucketize(call: Call) -> Flow:
    """The number of the interval that each value lies in."""
    source = call["self"]
    if not isinstance(source, Operand) or not source.traced:
        return Constant()  # an index, found in a row of numbers that comes from the image
    return carry(source, call.output, is_gate=False)


@register_rule("aten.one_hot")
def one_hot(call: Call) -> Flow:
    """A class number as a vector, along a new axis of channels."""
    source: Operand = call["self"]
    axes = (*source.traced_layout.axes, (Factor(call.output[-1], Kind.CHANNEL),))
    return without_positions(source, axes)


@register_rule("aten.embedding")
def embedding(call: Call) -> Flow:
    """Rows of a table, by numbers."""
    return looked_up(call, call["indices"])


def looked_up(call: Call, index: Operand) -> Flow:
    """Entries of a constant, by an index that comes from the image: the content is the index.

    Raises:
        LayoutError: the index has no label, or axes of the result are not where the index has them.
    """
    others = [one for one in call.traced if one is not index]
    axes = index.traced_layout.axes
    if not index.labeled or others or call.output[: len(axes)] != index.shape:
        raise LayoutError(
            "entries of a constant are looked up by an index from the image that has no label of "
            "its own, or by several"
        )
    rest = [(Factor(size, Kind.CHANNEL),) for size in call.output[len(axes) :]]
    return without_positions(index, (*axes, *rest))


def _along_axes(
    source: Operand,
    dims: Sequence[int],
    index: Operand,
    sizes: Sequence[int],
    output: Sequence[int],
) -> Flow:
    """Indices of one axis, or a mask over neighboring axes, in an axis of its own."""
    (dim,) = dims
    axis = source.traced_layout.axes[dim]
    if not has_positions(axis) or pure_positions(axis):
        return taken(source, dim, index, sizes)
    axes = source.traced_layout.axes
    after = [*axes[:dim], (Factor(output[dim], Kind.POSITION),), *axes[dim + 1 :]]
    return picked(source, after, "index_select", (dim, index), whole=[dim], whole_after=[dim])


def _equal_last_axes(mask: Operand, axes: Sequence[Axis]) -> int:
    """How many of the last axes have no positions and one entry of the mask each."""
    count = 0
    for axis in reversed(axes):
        place = len(mask.shape) - 1 - count
        same = (
            place < 0 or mask.shape[place] == 1 or bool(mask.strides and mask.strides[place] == 0)
        )
        if has_positions(axis) or not same:
            break
        count += 1
    return count
