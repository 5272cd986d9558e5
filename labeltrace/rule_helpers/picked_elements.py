"""Elements that an operator picks from a tensor, by an index that is known at run time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch

from labeltrace.flow import Elements, Flow, LabelView, Operand, Operation, Reindex, Weights
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    arrange,
    has_channels,
    has_positions,
    renumbered,
)
from labeltrace.rule_helpers.elementwise import relayout

MASKS = (torch.bool, torch.uint8)
"""The types of tensors that are masks where they index another one."""


def index_tensor(operand: Operand) -> Operand:
    """An operand that is read as an index: by its own values, whatever it carries."""
    return replace(operand, tensor=operand.values or operand.tensor)


def index_arguments(value: Any) -> Any:
    """Arguments of an operator with the tensors among them as indices."""
    if isinstance(value, Operand):
        return index_tensor(value)
    if isinstance(value, (list, tuple)):
        return tuple(index_arguments(item) for item in value)
    return value


def element_labels(operand: Operand, whole: Collection[int]) -> tuple[LabelView, Elements]:
    """The labels of an operand's elements.

    Args:
        operand: a labeled operand.
        whole: the axes all of whose elements are needed; along others, an element stands for all
            channels or copies.
    """
    groups: list[tuple[Factor, ...]] = []
    sizes: list[int] = []
    shape: list[int] = []
    for dim, axis in enumerate(operand.traced_layout.axes):
        axis_elements = 1
        for factor in axis:
            size = factor.size if factor.is_position or dim in whole else 1
            groups.append((factor,) if factor.is_position else ())
            sizes.append(size)
            axis_elements *= size
        shape.append(axis_elements)
    view = LabelView(operand, arrange(operand.traced_layout, groups or [()]))
    return view, Elements(sizes=tuple(sizes) or (1,), shape=tuple(shape))


def index_places(rank: int, indices: Sequence[Operand | None]) -> list[int | None]:
    """The axes of `tensor[indices]`: which of the tensor's each is, None for one of the indices.

    A mask takes as many axes as it has, and gives one. The axes of the indices stand together:
    where the indices do if these are neighbors, else first.
    """
    untouched: list[int] = []
    touched: list[int] = []
    new = 0
    for one in indices:
        dim = len(untouched) + len(touched)
        if one is None:
            untouched.append(dim)
            continue
        is_mask = one.dtype in MASKS
        touched += range(dim, dim + (len(one.shape) if is_mask else 1))
        new = max(new, 1 if is_mask else len(one.shape))
    untouched += range(len(untouched) + len(touched), rank)
    neighbors = touched == list(range(touched[0], touched[-1] + 1))
    before = [dim for dim in untouched if neighbors and dim < touched[0]]
    return [*before, *[None] * new, *untouched[len(before) :]]


def axis_after_index(axis: Axis, size: int) -> Axis:
    """An axis after an index has picked `size` of its elements: channels stay channels."""
    if has_channels(axis) and not has_positions(axis):
        return (Factor(size, Kind.CHANNEL),)
    if size == 1 and not has_positions(axis):
        return ()
    if len(axis) == 1 and axis[0].kind is Kind.BATCH and axis[0].size == size:
        return axis
    return (Factor(size, Kind.POSITION),)


def kept_factors(axes: Sequence[Axis]) -> tuple[int, ...]:
    """Which of the factors of all axes, in order, the label varies along."""
    factors = [factor for axis in axes for factor in (axis or (Factor(1, Kind.REPEATED),))]
    return tuple(index for index, factor in enumerate(factors) if factor.is_position)


def factor_sizes(axes: Sequence[Axis], whole: Collection[int]) -> tuple[int, ...]:
    """The sizes of the factors of all axes; one where an element stands for all channels."""
    return tuple(
        factor.size if factor.is_position or dim in whole else 1
        for dim, axis in enumerate(axes)
        for factor in (axis or (Factor(1, Kind.REPEATED),))
    )


def picked(
    source: Operand,
    axes: Sequence[Axis],
    operator: str,
    arguments: tuple[Any, ...],
    *,
    whole: Collection[int],
    whole_after: Collection[int],
) -> Flow:
    """The flow of a result whose elements an operator picks from `source`.

    Args:
        source: the tensor that elements are picked from.
        axes: the axes of the result; axes with positions that are not touched have the factors that
            they have in the source.
        operator: see `labeltrace.flow.Indexing`.
        arguments: the operator's arguments after the tensor.
        whole: the axes of the source that the index touches.
        whole_after: the axes of the result that it touches.
    """
    layout = renumbered(axes)
    if source.is_weights:
        return Weights(layout=layout)
    view, elements = element_labels(source, whole)
    return Reindex(
        layout=layout,
        source=view,
        elements=elements,
        operator=operator,
        arguments=index_arguments(arguments),
        rank=len(axes),
        result=factor_sizes(axes, whole_after),
        kept=kept_factors(axes),
    )


def without_positions(source: Operand, axes: Sequence[Axis]) -> Flow:
    """The flow where an index touches no axis with positions: labels stay."""
    if source.is_weights:
        return Weights(layout=renumbered(axes))
    return relayout(source, Layout(tuple(axes)), operation=Operation.RELAYOUT)
