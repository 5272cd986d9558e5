"""Comparison of the parts of two nodes, and of values without parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labeltrace.model_state.kinds import EMPTY_TYPES, Kind, kind_of
from labeltrace.model_state.nodes import Node, Part
from labeltrace.model_state.stores import ABSENT, ArrayItems, Fixed, Items
from labeltrace.model_state.tokens import array_content, value_content


def paired_attributes(
    a: Node, b: Node, names: frozenset[str], others: frozenset[str]
) -> Iterator[tuple[Part, Part]]:
    """The attributes of a class in two surveys, which need not have read the same ones.

    `names` and `others` are all that the class had: what only one survey read is compared with
    nothing if the other class had none, and left out otherwise.
    """
    first = {part.labels[0]: part for part in a.parts}
    second = {part.labels[0]: part for part in b.parts}
    for name in {**first, **second}:
        if name in first and name in second:
            yield first[name], second[name]
        elif name in first and name not in others:
            yield first[name], _absent(first[name])
        elif name in second and name not in names:
            yield _absent(second[name]), second[name]


def _absent(part: Part) -> Part:
    """The same attribute as if it were not set."""
    return Part(part.store, part.labels, (ABSENT,), [(part.labels[0], ABSENT)])


def is_sequence(part: Part) -> bool:
    """Whether a part holds items by their index."""
    by_index = part.labels == tuple(range(len(part.labels)))
    return by_index and isinstance(part.store, Items | ArrayItems | Fixed)


def by_label(part: Part) -> dict[Any, tuple[Any, Any]]:
    """The slots of a part, by something about the label that can be compared."""
    return {label_key(label): (label, value) for label, value in part.slots}


def label_key(label: Any) -> Any:
    """A label as something that can be compared: by value, or by identity."""
    return (type(label), value_content(label) if kind_of(label) is Kind.VALUE else id(label))


def members(part: Part) -> frozenset[Any]:
    """The members of a set, as something that can be compared."""
    return frozenset(map(label_key, part.values))


def same_value(a: Any, b: Any) -> bool:
    """Whether two values without places inside are the same."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) in EMPTY_TYPES or type(a) is slice:
        return True if type(a) in EMPTY_TYPES else repr(a) == repr(b)
    return kind_of(a) is Kind.VALUE and bool(value_content(a) == value_content(b))


def same_array(a: Any, b: Any) -> bool:
    """Whether two copies of numpy arrays, or of bytearrays, have the same content."""
    if not hasattr(a, "dtype") or not hasattr(b, "dtype"):
        return bytes(a) == bytes(b)
    content, other = array_content(a), array_content(b)
    if content is not None or other is not None:
        return content == other
    same = a.shape == b.shape and a.dtype == b.dtype
    return bool(same and a.tobytes() == b.tobytes())
