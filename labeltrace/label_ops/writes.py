"""Labels of a tensor to whose parts other tensors were written, or added."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic
from labeltrace.label_ops.elements import (
    NO_ROW,
    equal_along,
    looked_up,
    numbered,
    pick,
    whole_sizes,
    with_prior,
)


@label_arithmetic
def overwrite(
    pieces: Sequence[Tensor | None],
    prior: Tensor,
    places: Sequence[Sequence[Any]],
    kept: Sequence[int],
    sizes: Sequence[Sequence[int]],
    shapes: Sequence[Sequence[int]],
    result: Sequence[int],
    batch: int | None = None,
) -> Tensor:
    """Labels of a tensor after others were written to parts of it, one after the other.

    Sizes that depend on the batch are negative: -n stands for n times the batch.

    Args:
        pieces: the field of the tensor, then one for each tensor that is written to it, with a
            dimension for each factor of its axes. None is a constant, which carries the prior where
            it holds a position alone, and nothing where other channels come from the image.
        prior: (B, K).
        places: for each of the written tensors the operator that picks the elements it is written
            to, and its arguments; see `labeltrace.label_ops.elements.pick`.
        kept: the dimensions of `result` that are dimensions of the new field, in order; labels are
            averaged over all others.
        sizes: for each piece the sizes to which its factors are expanded.
        shapes: for each piece the shape of its elements.
        result: the sizes of the factors of the tensor.
        batch: the dimension of the new field that is the batch; None if it has none.
    """
    tables = [piece.flatten(0, -2) for piece in pieces if piece is not None]
    table = torch.cat(tables) if tables else prior[:0]
    numbers = [
        _numbers(piece, prior, size, shape, sum(len(before) for before in tables[:index]))
        for piece, size, shape, index in zip(pieces, sizes, shapes, _counted(pieces), strict=True)
    ]
    narrowed = _equal_for_all(places, kept)
    found = _narrowed(numbers[0], narrowed).clone(memory_format=torch.contiguous_format)
    elements = _elements(found)
    for written, (operator, arguments) in zip(numbers[1:], places, strict=True):
        if operator == "view":
            arguments = _geometry(arguments, prior)
        where = pick(elements, operator, arguments, narrowed)
        rows, at = _fitted(written, where, operator).flatten(), where.flatten()
        if operator == "view":
            rows, at = rows[at >= 0], at[at >= 0]
        found.view(-1)[at] = rows
    labels, share = looked_up(table, _in_factors(found, result, prior), kept)
    return with_prior(labels, share, prior, batch) if None in pieces else labels


@label_arithmetic
def add_at(
    pieces: Sequence[Tensor | None],
    prior: Tensor,
    places: Sequence[Sequence[Any]],
    kept: Sequence[int],
    sizes: Sequence[Sequence[int]],
    shapes: Sequence[Sequence[int]],
    result: Sequence[int],
    adds: Sequence[bool],
    keeps: Sequence[bool],
    batch: int | None = None,
) -> Tensor:
    """Labels of a tensor after others were added to parts of it, or written: `Norm` of the sums.

    An element has the mean label of all that lands on it and of what was there before. Constants
    count for nothing; where there is nothing else, they carry the prior.

    Args:
        pieces: the field of the tensor, and those of what is added; None for a constant.
        prior, places, kept, sizes, shapes, result, batch: see `overwrite`.
        adds: for each of them whether it is added, or written over what is there.
        keeps: for each of them whether what was there before counts also where it is added.
    """
    narrowed = _equal_for_all(places, kept)
    before = _narrowed(_numbers(pieces[0], prior, sizes[0], shapes[0], 0), narrowed)
    elements = _elements(before)
    sums = _Sums(pieces[0], before, prior)
    written = zip(pieces[1:], sizes[1:], shapes[1:], places, adds, keeps, strict=True)
    for piece, size, shape, (operator, arguments), is_added, counts_before in written:
        if operator == "view":
            arguments = _geometry(arguments, prior)
        where = pick(elements, operator, arguments, narrowed)
        numbers = _fitted(_numbers(piece, prior, size, shape, 0), where, operator).flatten()
        at = where.flatten()
        if operator == "view":
            numbers, at = numbers[at >= 0], at[at >= 0]
        if not is_added:
            sums.write(piece, numbers, at)
        elif piece is not None:
            sums.add(piece, numbers, at, counts_before)
    rows = sums.total / sums.count.clamp(min=1)[:, None]
    found = elements.masked_fill((sums.count == 0).view(elements.shape), NO_ROW)
    labels, share = looked_up(rows, _in_factors(found, result, prior), kept)
    return with_prior(labels, share, prior, batch) if None in pieces else labels


class _Sums:
    """The sum of the labels on each element, and their number."""

    def __init__(self, base: Tensor | None, numbers: Tensor, prior: Tensor) -> None:
        self.total = prior.new_zeros(numbers.numel(), prior.shape[-1])
        self.count = prior.new_zeros(numbers.numel())
        if base is not None:
            self.total += base.flatten(0, -2)[numbers.flatten()]
            self.count += 1

    def write(self, piece: Tensor | None, numbers: Tensor, at: Tensor) -> None:
        """Labels in place of those that were there; none of a constant."""
        self.total[at] = 0.0 if piece is None else piece.flatten(0, -2)[numbers]
        self.count[at] = 0.0 if piece is None else 1.0

    def add(self, piece: Tensor, numbers: Tensor, at: Tensor, counts_before: bool) -> None:
        """Labels to those that were there, or in place of them."""
        if not counts_before:
            self.write(None, numbers, at)
        self.total.index_add_(0, at, piece.flatten(0, -2)[numbers])
        self.count.index_add_(0, at, self.count.new_ones(len(at)))


def _narrowed(numbers: Tensor, axes: Sequence[int]) -> Tensor:
    """The numbers cut to one along axes of channels."""
    for axis in axes:
        numbers = numbers.narrow(axis, 0, 1)
    return numbers


def _equal_for_all(places: Sequence[Sequence[Any]], kept: Sequence[int]) -> list[int]:
    """The axes of channels along which the indices of all writes have been expanded."""
    axes = [set(equal_along(operator, arguments, kept)) for operator, arguments in places]
    return sorted(set.intersection(*axes))


def _counted(pieces: Sequence[Tensor | None]) -> list[int]:
    """For each piece, how many fields stand before it."""
    return [sum(other is not None for other in pieces[:index]) for index in range(len(pieces))]


def _numbers(
    piece: Tensor | None, prior: Tensor, sizes: Sequence[int], shape: Sequence[int], start: int
) -> Tensor:
    """The number of each element's row, or `NO_ROW` for the elements of a constant."""
    whole = whole_sizes(shape, prior)
    if piece is None:
        return torch.full(whole, NO_ROW, device=prior.device)
    return numbered(piece, whole_sizes(sizes, prior), whole, start)


def _elements(like: Tensor) -> Tensor:
    """The elements of a tensor, numbered in their order."""
    return torch.arange(like.numel(), device=like.device).view(like.shape)


def _fitted(written: Tensor, where: Tensor, operator: str) -> Tensor:
    """What is written to the elements `where`, one for each of them."""
    if operator == "masked_select":
        return written.flatten()[: where.numel()].expand(where.shape)
    if operator == "gather" and written.dim() == where.dim():
        written = written[tuple(slice(size) for size in where.shape)]
    return written.expand(where.shape)


def _geometry(arguments: Sequence[Any], prior: Tensor) -> list[Any]:
    """Shapes and strides with the batch as it is; offsets do not depend on it."""
    return [one if isinstance(one, int) else whole_sizes(one, prior) for one in arguments]


def _in_factors(found: Tensor, result: Sequence[int], prior: Tensor) -> Tensor:
    """The elements with a dimension for each factor; as they are where channels were cut to one."""
    whole = whole_sizes(result, prior)
    return found.reshape(whole) if math.prod(whole) == found.numel() else found
