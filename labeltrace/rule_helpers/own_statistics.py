"""A stream and its own statistics: which steps normalize (contract, point 5).

A mean over positions that is subtracted from the stream that it is the mean of moves no content: it
is a number like a normalization layer's. So a sum of a stream and a statistic of that same stream,
one of them with a minus sign, is point-wise. What tells that is the flow of data, not its spelling:
every value knows its origins (`labeltrace.flow.Origin`), and a statistic also knows which positions
of its origin are left in it, so that it cannot be laid along other ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod

from labeltrace.flow import Operand, Origin, Strides
from labeltrace.layout import Axis, Layout, Size, axis_size, divides, has_positions, positions
from labeltrace.rule_api.call import Shape

Run = tuple[Size, Size | None]
"""The size of some neighboring indices of an axis, and their stride; None for channels."""


def reduced_origins(source: Operand, kept: Sequence[Axis | Size]) -> tuple[Origin, ...]:
    """The origins of the statistics of an operand that are left with some axes.

    Args:
        source: the operand.
        kept: the axes of the result as they are in the operand's layout, or the size of a new axis
            of copies. The label field of the result has a dimension for each position of the first
            kind and one for each new axis, in this order.
    """
    found: list[Origin] = []
    for origin in source.origins:
        strides = _strides_of_dims(source.traced_layout, origin)
        if strides is not None:
            left = [_kept_strides(axis, strides) for axis in kept]
            found.append(replace(origin, strides=sum(left, ())))
    return tuple(found)


def _kept_strides(axis: Axis | Size, strides: Sequence[Strides]) -> Strides:
    if not isinstance(axis, tuple):
        return ((axis, 0),)
    return tuple(run for factor in positions(axis) for run in strides[factor.field_dim])


def statistics_of_channels(source: Operand) -> tuple[Origin, ...]:
    """The origins of the statistics of an operand over channels alone, in the same label field."""
    whole: Strides = ((prod(size for size in source.traced_layout.field_sizes), 1),)
    return tuple(
        replace(origin, strides=whole if origin.strides is None else origin.strides)
        for origin in source.origins
    )


def statistics_only(origins: Iterable[Origin]) -> tuple[Origin, ...]:
    """The origins that remain where values are repeated along new indices: a statistic is one."""
    return tuple(origin for origin in origins if origin.is_statistic)


def normalized_stream(first: Operand, second: Operand, output: Shape) -> Operand | None:
    """The operand of a sum that the other one normalizes; None for any other sum.

    Args:
        first: one operand; its origins are negative where it is subtracted.
        second: the other one.
        output: the shape of the sum.
    """
    for stream, statistic in ((first, second), (second, first)):
        for origin in stream.origins:
            other = _same_origin(origin, statistic)
            if other is None or not other.is_statistic or other.negative == origin.negative:
                continue
            if origin.is_statistic and stream.field != statistic.field:
                continue
            if _is_aligned((stream, origin), (statistic, other), output):
                return stream
    return None


def sum_origins(source: Operand, operands: Iterable[Operand], output: Shape) -> tuple[Origin, ...]:
    """The origins of a sum, or another function, of several operands, value by value.

    Args:
        source: the operand whose label the output has.
        operands: all operands that come from the image.
        output: the shape of the output.
    """
    others = [operand for operand in operands if operand is not source]
    return tuple(
        origin
        for origin in source.origins
        if all(_depends_alike(origin, source, other, output) for other in others)
    )


def product_origins(
    source: Operand, operands: Sequence[Operand], output: Shape
) -> tuple[Origin, ...]:
    """The origins of a product or quotient, whose sign is that of all operands together."""
    found = sum_origins(source, operands, output)
    others = [operand for operand in operands if operand is not source]
    return tuple(replace(origin, negative=_sign(origin, others)) for origin in found)


def _sign(origin: Origin, others: Sequence[Operand]) -> bool:
    negative = origin.negative
    for other in others:
        found = _same_origin(origin, other)
        negative ^= found is not None and found.negative
    return negative


def _same_origin(origin: Origin, operand: Operand) -> Origin | None:
    """The origin of an operand in the same tensor."""
    return next((other for other in operand.origins if other.tensor == origin.tensor), None)


def _depends_alike(origin: Origin, source: Operand, other: Operand, output: Shape) -> bool:
    """Whether the other operand depends on the same tensor, at the same positions at most."""
    found = _same_origin(origin, other)
    if found is None or (origin.is_statistic and not found.is_statistic):
        return False
    return _is_aligned((source, origin), (other, found), output)


# Positions. ---------------------------------------------------------------------------------------


def _is_aligned(
    stream: tuple[Operand, Origin], statistic: tuple[Operand, Origin], output: Shape
) -> bool:
    """Whether the positions left in a statistic lie along those same positions of a stream."""
    layouts = [operand.traced_layout for operand, _ in (stream, statistic)]
    strides = [
        _strides_of_dims(operand.traced_layout, origin) for operand, origin in (stream, statistic)
    ]
    if strides[0] is None or strides[1] is None:
        return False
    padded = [((),) * (len(output) - len(layout.axes)) + layout.axes for layout in layouts]
    for size, own, other in zip(output, *padded, strict=True):
        if axis_size(own) != size:
            return False
        if axis_size(other) != size or not has_positions(other):
            continue
        if not _same_strides(_runs(own, strides[0]), _runs(other, strides[1])):
            return False
    return True


def _strides_of_dims(layout: Layout, origin: Origin) -> list[Strides] | None:
    """Where each dimension of a layout's field lies in the field of an origin.

    None where a dimension cuts through one of those that the origin is known by.
    """
    sizes = layout.field_sizes
    left = list(((prod(size for size in sizes), 1),) if origin.strides is None else origin.strides)
    found: list[Strides] = []
    for size in reversed(sizes):
        taken = _take_inner(left, size)
        if taken is None:
            return None
        found.append(taken)
    return found[::-1]


def _take_inner(runs: list[tuple[Size, Size]], size: Size) -> Strides | None:
    """Take runs of product `size` off the end of a list; the outermost one is cut if need be."""
    taken: list[tuple[Size, Size]] = []
    while size > 1:
        if not runs:
            return None
        count, stride = runs.pop()
        if divides(count, size):
            taken.append((count, stride))
            size //= count
        elif divides(size, count):
            taken.append((size, stride))
            runs.append((count // size, stride * size))
            size = 1
        else:
            return None
    return tuple(reversed(taken))


def _runs(axis: Axis, strides: Sequence[Strides]) -> list[Run]:
    """An axis as runs of indices, outermost first."""
    found: list[Run] = []
    for factor in axis:
        if factor.is_position:
            found.extend(strides[factor.field_dim])
        else:
            found.append((factor.size, None))
    return [run for run in found if run[0] != 1]


def _same_strides(own: list[Run], other: list[Run]) -> bool:
    """Whether each run of the other list is a copy, channels, or the same positions."""
    while own and other:
        (own_size, own_stride), (other_size, other_stride) = own.pop(), other.pop()
        size = min(own_size, other_size)
        if own_size % size or other_size % size:
            return False
        if other_stride not in (None, 0, own_stride):
            return False
        own += _rest(own_size, own_stride, size)
        other += _rest(other_size, other_stride, size)
    return not own and not other


def _rest(count: Size, stride: Size | None, taken: Size) -> list[Run]:
    """What is left of a run after its inner indices have been taken."""
    left = count // taken
    return [(left, None if stride is None else stride * taken)] if left > 1 else []
