"""What differs between two snapshots of a model: a walk over both, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from labeltrace.model_state.comparison import (
    by_label,
    is_sequence,
    members,
    paired_attributes,
    same_array,
    same_value,
)
from labeltrace.model_state.descriptions import describe
from labeltrace.model_state.difference import Difference, DifferenceKind
from labeltrace.model_state.kinds import EMPTY_TYPES, SCALARS, Kind, kind_of
from labeltrace.model_state.nodes import Part, holds_members
from labeltrace.model_state.paths import REGISTRIES, suffix
from labeltrace.model_state.stores import ABSENT, Cell, Entries, Store
from labeltrace.model_state.tokens import BY_IDENTITY

if TYPE_CHECKING:
    from labeltrace.model_state.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pair of values is: the module or global that holds it, and the way from there."""

    kind: DifferenceKind
    owner: str
    inner: str = ""

    @property
    def path(self) -> str:
        """The whole path."""
        dot = "." if self.owner and self.inner and self.inner[0] not in "[{" else ""
        return f"{self.owner}{dot}{self.inner}"

    def inside(self, label: str) -> Place:
        """A place inside this one."""
        return replace(self, inner=f"{self.inner}{label}".removeprefix("."))


def differences(
    before: Snapshot, after: Snapshot, *, rebound: bool = True
) -> tuple[Difference, ...]:
    """What changed between two snapshots of the same model, or of two runs from the same state.

    Plain values, containers and objects are compared by content, tensors bit for bit.

    Args:
        before: the first snapshot.
        after: the second.
        rebound: whether another tensor in an attribute is a difference even if it has the same
            values, as where `forward` keeps a loss that happens to be that of the last call; for
            two runs of a model say False.

    Examples:
        >>> from torch import nn
        >>> from labeltrace.model_state.snapshot import take_snapshot
        >>> model = nn.Sequential(nn.Dropout(0.5))
        >>> before = take_snapshot(model)
        >>> model[0].p = 0.9
        >>> [difference.text for difference in differences(before, take_snapshot(model))]
        ['attribute `p` of `0` changed from 0.5 to 0.9']
    """
    walk = _Walk(before, after, rebound)
    walk.run()
    return tuple(walk.found)


class _Walk:
    """The walk over two snapshots."""

    def __init__(self, before: Snapshot, after: Snapshot, rebound: bool) -> None:
        self.before = before
        self.after = after
        self.rebound = rebound
        self.found: list[Difference] = []
        self._seen: set[tuple[int, int]] = set()
        self._waiting: list[tuple[int, int, Place]] = []

    def run(self) -> None:
        """Compare the models, then globals and classes, then generators."""
        self._pair(0, 0, Place(DifferenceKind.ATTRIBUTE, ""))
        for identity, number in self.before.survey.numbers.items():
            node = self.before.survey.nodes[number]
            other = self.after.survey.numbers.get(identity)
            if other is not None and node.kind in (Kind.NAME, Kind.CLASS):
                hook = "._global_" in str(node.label)
                kind = DifferenceKind.HOOK if hook else DifferenceKind.GLOBAL
                if node.kind is Kind.CLASS:
                    kind = DifferenceKind.ATTRIBUTE
                self._pair(number, other, Place(kind, str(node.label)))
        while self._waiting:
            self._compare_nodes(*self._waiting.pop())
        for name, state in self.before.generators.items():
            other_state = self.after.generators.get(name)
            if other_state is not None and other_state.content != state.content:
                text = f"the random generator `{name}` advanced or was seeded"
                self.found.append(Difference(DifferenceKind.GENERATOR, name, text))

    def _pair(self, first: int, second: int, place: Place) -> None:
        if (first, second) not in self._seen:
            self._seen.add((first, second))
            self._waiting.append((first, second, place))

    # Nodes.

    def _compare_nodes(self, first: int, second: int, place: Place) -> None:
        """Compare two nodes of one kind, whose values are taken for the same place."""
        a, b = self.before.survey.nodes[first], self.after.survey.nodes[second]
        if a.kind is Kind.MODULE:
            place = Place(DifferenceKind.ATTRIBUTE, place.path)
        if a.kind is Kind.TENSOR:
            self._compare_tensors(first, second, place)
        elif first in self.before.arrays and second in self.after.arrays:
            same = same_array(self.before.arrays[first], self.after.arrays[second])
            if not same:
                self._report(place, a.value, b.value, "was written to")
        known, other = self.before.classes.get(first), self.after.classes.get(second)
        if known is not other and a.kind is not Kind.CLASS:
            self._report(place.inside(".__class__"), known, other)
        pairs: Iterable[tuple[Part, Part]] = zip(a.parts, b.parts, strict=False)
        if a.kind is Kind.CLASS:
            names, others = self.before.classes[first], self.after.classes[second]
            pairs = paired_attributes(a, b, names, others)
        for part, another in pairs:
            self._compare_parts(part, another, place)

    def _compare_tensors(self, first: int, second: int, place: Place) -> None:
        a, b = self.before.tensors[first], self.after.tensors[second]
        if not a.equals(b):
            self._report(place, a.tensor, b.tensor, "has other values or another form")
        elif self.rebound and a.tensor is not b.tensor and place.kind not in REGISTERED:
            self._report(place, a.tensor, b.tensor, "is another tensor of the same values")

    # Parts.

    def _compare_parts(self, a: Part, b: Part, place: Place) -> None:
        """Compare what two places hold, label by label."""
        if holds_members(a.store):
            if members(a) != members(b):
                self._report_contents(place, a, b)
            return
        first, second = by_label(a), by_label(b)
        if is_sequence(a) and len(first) != len(second):
            self._report_contents(place, a, b)
            return
        reordered = first.keys() == second.keys() and list(first) != list(second)
        if isinstance(a.store, Entries) and reordered:
            self._report(place, a.store.owner, b.store.owner, "has another order of keys")
        for label, (name, value) in first.items():
            _, other = second.get(label, (name, ABSENT))
            self._compare_values(value, other, self._place_of(place, a.store, name))
        for label, (name, value) in second.items():
            if label not in first:
                inside = self._place_of(place, b.store, name)
                self._report(inside, ABSENT, value)

    def _place_of(self, place: Place, store: Store, label: Any) -> Place:
        """The place of an entry; the dicts of a module decide what it is."""
        if isinstance(store, Cell):
            return place
        if isinstance(store, Entries) and place.inner in REGISTRIES:
            inside = replace(place, inner=str(label))
        else:
            inside = place if _is_global(place, label) else place.inside(suffix(store, label))
        if place.kind is DifferenceKind.ATTRIBUTE and place.inner in _REGISTRY_KINDS:
            return replace(inside, kind=_REGISTRY_KINDS[place.inner])
        if place.kind is DifferenceKind.ATTRIBUTE and place.inner.endswith(_HOOKS):
            return replace(inside, kind=DifferenceKind.HOOK)
        return inside

    def _compare_values(self, a: Any, b: Any, place: Place) -> None:
        """Compare two values that are held at the same place."""
        first = self.before.survey.numbers.get(id(a)) if type(a) not in SCALARS else None
        second = self.after.survey.numbers.get(id(b)) if type(b) not in SCALARS else None
        if first is not None and second is not None:
            x, y = self.before.survey.nodes[first], self.after.survey.nodes[second]
            comparable = x.kind is y.kind and (type(x.value) is type(y.value) or x.value is y.value)
            if x.kind in BY_IDENTITY and x.value is not y.value:
                comparable = False
            if comparable and x.kind is not Kind.CLASS:
                self._pair(first, second, place)
            elif not comparable:
                self._report(place, a, b)
            return
        if first is None and second is None and same_value(a, b):
            return
        if type(a) is type(b) and type(a) in EMPTY_TYPES:  # one of them is or was empty
            self._compare_with_empty(first, second, a, place)
            return
        self._report(place, a, b)

    def _compare_with_empty(
        self, first: int | None, second: int | None, container: Any, place: Place
    ) -> None:
        """Compare two containers of one type of which one is or was empty."""
        number, survey = (
            (first, self.before.survey) if second is None else (second, self.after.survey)
        )
        if number is None:
            return
        filled = survey.nodes[number].parts[0]
        empty = Part(filled.store, (), (), [])
        if holds_members(filled.store) or is_sequence(filled):
            a, b = (filled, empty) if second is None else (empty, filled)
            self._report_contents(place, a, b)
        elif second is None:
            self._compare_parts(filled, empty, place)
        else:
            self._compare_parts(empty, filled, place)

    # Words.

    def _report_contents(self, place: Place, a: Part, b: Part) -> None:
        """Report two lists, tuples or sets that differ in length or members."""
        was = _listed(a, self.before)
        now = _listed(b, self.after)
        self._add(place, a.store.owner, f"changed from {was} to {now}")

    def _report(self, place: Place, a: Any, b: Any, words: str = "") -> None:
        if not words:
            now = describe(b, self.after.survey)
            was = describe(a, self.before.survey)
            words = f"is new: {now}" if a is ABSENT else f"changed from {was} to {now}"
            words = f"was removed; it was {was}" if b is ABSENT else words
        shown = b if kind_of(b) is Kind.TENSOR else a
        self._add(place, shown, words)

    def _add(self, place: Place, value: Any, words: str) -> None:
        kind = place.kind
        if kind not in (*REGISTERED, DifferenceKind.HOOK) and kind_of(value) is Kind.TENSOR:
            kind = DifferenceKind.TENSOR
        name = f"`{place.inner or place.owner or 'the model'}`"
        owner = f" of `{place.owner or 'the model'}`" if place.inner else ""
        self.found.append(Difference(kind, place.path, f"{kind.value} {name}{owner} {words}"))


REGISTERED = (DifferenceKind.BUFFER, DifferenceKind.PARAMETER)
_REGISTRY_KINDS = {
    "_parameters": DifferenceKind.PARAMETER,
    "_buffers": DifferenceKind.BUFFER,
}
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")


def _is_global(place: Place, label: Any) -> bool:
    """Whether a label is the name of the global that the place is."""
    global_kinds = (DifferenceKind.GLOBAL, DifferenceKind.HOOK)
    return place.kind in global_kinds and not place.inner and place.owner.endswith(f".{label}")


def _listed(part: Part, snapshot: Snapshot) -> str:
    shown = ", ".join([describe(value, snapshot.survey, 1) for value in part.values[:4]])
    return f"{len(part.values)} items ({shown}{', ...' if len(part.values) > 4 else ''})"
