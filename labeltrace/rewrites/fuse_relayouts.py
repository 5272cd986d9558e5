"""Runs of relayouts become one: who reads a rearranged field reads the field behind it."""

from __future__ import annotations

from dataclasses import replace

from labeltrace.flow import LabelField, LabelStep, LabelView, Rearrange
from labeltrace.layout import Arrangement
from labeltrace.rewrites.steps import Steps, field_of, with_labels


def fuse_relayouts(steps: Steps) -> Steps:
    """Every step reads past rearranged fields, where one arrangement can say what two did."""
    folded: dict[LabelField, LabelStep] = {}

    def past(labels: LabelView) -> LabelView:
        behind = folded.get(field_of(labels))
        if (
            not isinstance(behind, Rearrange)
            or behind.field_sizes != behind.source.arrangement.shape
        ):
            return labels
        arrangement = composed(behind.source.arrangement, labels.arrangement)
        if arrangement is None:
            return labels
        operand = replace(labels.operand, field=field_of(behind.source))
        return LabelView(operand, arrangement)

    for field, step in steps.items():
        folded[field] = with_labels(step, past)
    return folded


def composed(first: Arrangement, second: Arrangement) -> Arrangement | None:
    """One arrangement that does what ``first`` does and then ``second``.

    None where the two split a dimension in ways that do not nest.
    """
    splits: dict[int, list[int]] = {}  # the sizes of the parts of each of first's dimensions
    places: list[list[tuple[int, int]]] = []  # of each of second's: parts of first's, in order
    rest = list(second.sizes)
    for group in first.groups:
        mine: list[int] = []
        total = 1
        whole = _size(first, group)
        while rest and (total < whole or rest[0] == 1):
            mine.append(rest.pop(0))
            total *= mine[-1]
        found = _nested([(slot, first.sizes[slot]) for slot in group], mine, splits)
        if total != whole or found is None:
            return None
        places += found
    places += [[] for _ in rest]  # dimensions of size one at the end
    starts: dict[int, int] = {}
    sizes: list[int] = []
    for slot, size in enumerate(first.sizes):
        starts[slot] = len(sizes)
        sizes += splits.get(slot, [size])
    groups = tuple(
        tuple(starts[slot] + part for place in group for slot, part in places[place])
        for group in second.groups
    )
    return Arrangement(tuple(sizes), groups)


def _size(arrangement: Arrangement, group: tuple[int, ...]) -> int:
    size = 1
    for slot in group:
        size *= arrangement.sizes[slot]
    return size


def _nested(
    factors: list[tuple[int, int]], wanted: list[int], splits: dict[int, list[int]]
) -> list[list[tuple[int, int]]] | None:
    """Cut a dimension made of ``factors`` (slot, size) into ``wanted`` sizes, from inside out.

    Enters the parts of each slot into ``splits`` and returns for each wanted size its parts as
    (slot, number of the part), outermost first; None where the cuts do not nest.
    """
    found: list[list[tuple[int, int]]] = [[] for _ in wanted]
    parts: dict[int, list[tuple[int, int]]] = {slot: [] for slot, _ in factors}
    open_places = [place for place in reversed(range(len(wanted))) if wanted[place] != 1]
    left = dict(enumerate(wanted))
    for slot, size in reversed(factors):
        remaining = size
        if size == 1:
            place = open_places[0] if open_places else 0
            if not wanted:
                return None
            parts[slot].append((1, place))
        while remaining > 1:
            if not open_places:
                return None
            place = open_places[0]
            if left[place] % remaining == 0:
                part = remaining
            elif remaining % left[place] == 0:
                part = left[place]
            else:
                return None
            parts[slot].append((part, place))
            remaining //= part
            left[place] //= part
            if left[place] == 1:
                open_places.pop(0)
    for slot, _ in factors:
        inner_first = parts[slot]
        splits[slot] = [size for size, _ in reversed(inner_first)]
    for slot, _ in factors:
        count = len(parts[slot])
        for index in range(count):  # outermost first
            _, place = parts[slot][count - 1 - index]
            found[place].append((slot, index))
    return found
