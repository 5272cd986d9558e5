"""Numbers of elements: which row of a field each element of a tensor has as its label.

An operator that only moves elements is applied to their numbers; so it says by itself, exactly,
where every label comes from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from labeltrace.errors import LabelError

LABELS_AT_ONCE = 2**22
"""How many labels are looked up at a time: 16 MiB."""

NO_ROW = -1
"""The number of an element that does not come from the image."""


def numbered(
    labels: Tensor,
    sizes: Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
    start: int = 0,
) -> Tensor:
    """For each element of a tensor the number of its row in the field, counted from `start`.

    Args:
        labels: the field, with a dimension for each factor of the tensor's axes, (factors..., K).
        sizes: the sizes to which the factors are expanded; those of the field by default.
        shape: the shape of the tensor; the sizes by default.
        start: the first number.
    """
    field = labels.shape[:-1]
    numbers = torch.arange(start, start + math.prod(field), device=labels.device).view(field)
    if sizes is not None:
        numbers = numbers.expand(tuple(sizes))
    return numbers if shape is None else numbers.reshape(tuple(shape))


def pick(
    elements: Tensor, operator: str, arguments: Sequence[Any], narrowed: Sequence[int] = ()
) -> Tensor:
    """The elements that an operator picks.

    Args:
        elements: the numbers of the elements.
        operator: a name of `torch.ops.aten`; or `"view"`, the elements that two views of one memory
            share, -1 for others, with shape, strides and offset of the one and of the other.
        arguments: its arguments after the tensor.
        narrowed: axes of channels along which the index of a `gather` has been expanded; it is cut
            to size one there, since all that it picks has one label.
    """
    if operator == "view":
        return _shared(elements, *arguments)
    if operator == "gather":
        dim, index = arguments
        for axis in narrowed:
            elements, index = elements.narrow(axis, 0, 1), index.narrow(axis, 0, 1)
        return elements.gather(dim, index)
    picked: Tensor = getattr(torch.ops.aten, operator)(elements, *arguments)
    return picked


def equal_along(operator: str, arguments: Sequence[Any], kept: Sequence[int]) -> list[int]:
    """The axes, but those of `kept`, along which the index of a `gather` has been expanded."""
    if operator != "gather":
        return []
    dim, index = arguments
    axes = [axis for axis in range(index.dim()) if axis not in kept and axis != dim % index.dim()]
    return [axis for axis in axes if index.shape[axis] > 1 and index.stride(axis) == 0]


def looked_up(table: Tensor, found: Tensor, kept: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The labels of elements, averaged over axes.

    Args:
        table: the labels (rows, K).
        found: the row of each element; negative for one that has none.
        kept: the axes of `found` that are not averaged.

    Returns:
        The labels (kept..., K), and how many elements were averaged for each, (kept...).
    """
    gone = [axis for axis in range(found.dim()) if axis not in kept]
    shape = [found.shape[axis] for axis in kept]
    count = math.prod(found.shape[axis] for axis in gone)
    columns = found.permute(*gone, *kept).reshape(count, *shape)
    total = table.new_zeros(*shape, table.shape[-1])
    share = table.new_zeros(shape)
    at_once = max(1, LABELS_AT_ONCE // max(1, total.numel()))
    if table.numel() == 0:
        return total, share
    for start in range(0, count, at_once):
        rows = columns[start : start + at_once]
        known = (rows >= 0).to(table.dtype)
        total += (table[rows.clamp(min=0)] * known[..., None]).sum(0)
        share += known.sum(0)
    return total / share.clamp(min=1)[..., None], share


def with_prior(labels: Tensor, share: Tensor, prior: Tensor, batch: int | None) -> Tensor:
    """Labels (positions..., K) with the prior (B, K) where nothing was averaged.

    Raises:
        LabelError: there is such a position, and no dimension says which image it belongs to.
    """
    missing = share == 0
    if batch is None:
        if prior.shape[0] > 1 and bool(missing.any()):
            raise LabelError(
                "positions that nothing was written to carry the prior of their image, and no axis "
                "says which image that is; make the first axis of that tensor the batch"
            )
        return torch.where(missing[..., None], prior[:1].reshape(-1), labels)
    spread = [1] * labels.dim()
    spread[batch], spread[-1] = prior.shape
    return torch.where(missing[..., None], prior.reshape(spread), labels)


def whole_sizes(sizes: Sequence[int], prior: Tensor) -> tuple[int, ...]:
    """Sizes in which -n stands for n times the batch, as they are."""
    return tuple(-size * prior.shape[0] if size < 0 else size for size in sizes)


def _shared(
    elements: Tensor,
    shape: Sequence[int],
    strides: Sequence[int],
    offset: int,
    part: Sequence[int],
    part_strides: Sequence[int],
    part_offset: int,
) -> Tensor:
    """The elements of a view that a part of the same memory has, which is another view."""
    reach = max(_reach(shape, strides, offset), _reach(part, part_strides, part_offset))
    memory = torch.full((reach + 1,), NO_ROW, device=elements.device)
    memory.as_strided(tuple(shape), tuple(strides), offset).copy_(elements)
    return memory.as_strided(tuple(part), tuple(part_strides), part_offset)


def _reach(shape: Sequence[int], strides: Sequence[int], offset: int) -> int:
    """The place of the last element of a view in its memory."""
    return offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True) if n > 0)
