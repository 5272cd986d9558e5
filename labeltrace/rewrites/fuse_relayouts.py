"""Consecutive relayouts become one: readers of a rearranged field read its source instead."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from labeltrace.flow import LabelField, LabelStep, LabelView, Rearrange
from labeltrace.layout import Arrangement, Size, divides
from labeltrace.rewrites.steps import Steps, with_labels


def fuse_relayouts(steps: Steps) -> Steps:
    """Let every step read the source of a rearranged field, if one arrangement can do it."""
    fused: dict[LabelField, LabelStep] = {}

    def from_source(labels: LabelView) -> LabelView:
        producer = fused.get(labels.field)
        if (
            not isinstance(producer, Rearrange)
            or producer.field_sizes != producer.source.arrangement.shape
        ):
            return labels
        arrangement = composed(producer.source.arrangement, labels.arrangement)
        if arrangement is None:
            return labels
        operand = replace(labels.operand, field=producer.source.field)
        return LabelView(operand, arrangement)

    for field, step in steps.items():
        fused[field] = with_labels(step, from_source)
    return fused


def composed(first: Arrangement, second: Arrangement) -> Arrangement | None:
    """One arrangement that does what `first` does and then `second`.

    None if the two split a dimension in ways that do not nest.

    A field (6, 4) is transposed to (4, 6); then 4 is split into 2 × 2 and the inner 2 is merged
    with 6. In one arrangement of the field, 4 is split, and the parts are reordered and merged:

    >>> transposed = Arrangement((6, 4), ((1,), (0,)))
    >>> split = Arrangement((2, 2, 6), ((0,), (1, 2)))
    >>> composed(transposed, split)
    Arrangement(sizes=(6, 2, 2), groups=((1,), (2, 0)))
    """
    splits: dict[int, list[Size]] = {}  # the sizes of the parts of each of first's dimensions
    parts: list[list[tuple[int, int]]] = []  # of each of second's: parts of first's, in order
    rest = list(second.sizes)
    for group in first.groups:
        taken: list[Size] = []
        total: Size = 1
        whole = prod(first.sizes[dim] for dim in group)
        while rest and (total != whole or rest[0] == 1):
            taken.append(rest.pop(0))
            total *= taken[-1]
        found = _cut_to_sizes([(dim, first.sizes[dim]) for dim in group], taken, splits)
        if total != whole or found is None:
            return None
        parts += found
    parts += [[] for _ in rest]  # dimensions of size one at the end
    starts: dict[int, int] = {}
    sizes: list[Size] = []
    for dim, size in enumerate(first.sizes):
        starts[dim] = len(sizes)
        sizes += splits.get(dim, [size])
    groups = tuple(
        tuple(starts[dim] + part for index in group for dim, part in parts[index])
        for group in second.groups
    )
    return Arrangement(tuple(sizes), groups)


def _cut_to_sizes(
    factors: list[tuple[int, Size]], wanted: list[Size], splits: dict[int, list[Size]]
) -> list[list[tuple[int, int]]] | None:
    """Cut the merged dimensions `factors` (dimension, size) into `wanted` sizes, from inside out.

    Enters the sizes of each dimension's parts into `splits` and returns for each wanted size its
    parts as (dimension, number of the part), outermost first; None if the cuts do not nest.

    >>> splits = {}
    >>> _cut_to_sizes([(0, 6), (1, 4)], [3, 8], splits)  # 6 × 4 = 3 × (2 × 4)
    [[(0, 0)], [(0, 1), (1, 0)]]
    >>> splits
    {0: [3, 2], 1: [4]}
    """
    found: list[list[tuple[int, int]]] = [[] for _ in wanted]
    parts: dict[int, list[tuple[Size, int]]] = {dim: [] for dim, _ in factors}  # innermost first
    unfilled = [index for index in reversed(range(len(wanted))) if wanted[index] != 1]
    left = dict(enumerate(wanted))
    for dim, size in reversed(factors):
        remaining = size
        if size == 1:
            index = unfilled[0] if unfilled else 0
            if not wanted:
                return None
            parts[dim].append((1, index))
        while remaining not in (0, 1):
            if not unfilled:
                return None
            index = unfilled[0]
            if divides(remaining, left[index]):
                part = remaining
            elif divides(left[index], remaining):
                part = left[index]
            else:
                return None
            parts[dim].append((part, index))
            remaining //= part
            left[index] //= part
            if left[index] == 1:
                unfilled.pop(0)
    for dim, _ in factors:
        outermost_first = parts[dim][::-1]
        splits[dim] = [size for size, _ in outermost_first]
        for number, (_, index) in enumerate(outermost_first):
            found[index].append((dim, number))
    return found
