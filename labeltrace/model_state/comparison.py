"""Comparison of the parts of two nodes, and of values without parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labeltrace.model_state.kinds import EMPTY_TYPES, Kind, kind_of
from labeltrace.model_state.nodes import Node, Part
from labeltrace.model_state.stores import ABSENT, Fixed, Items
from labeltrace.model_state.tokens import array_content, value_content


def paired_parts(a: Node, b: Node) -> Iterator[tuple[Part, Part]]:
    """The parts of two nodes that correspond to one another."""
    if a.kind is not Kind.CLASS:
        yield from zip(a.parts, b.parts, strict=False)
        return
    others = {part.labels[0]: part for part in b.parts}
    for part in a.parts:
        name = part.labels[0]
        missing = Part(part.store, (name,), (ABSENT,), [(name, ABSENT)])
        yield part, others.pop(name, missing)
    for name, part in others.items():
        yield Part(part.store, (name,), (ABSENT,), [(name, ABSENT)]), part


def is_sequence(part: Part) -> bool:
    """Whether a part holds items by their index."""
    by_index = part.labels == tuple(range(len(part.labels)))
    return by_index and isinstance(part.store, Items | Fixed)


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
