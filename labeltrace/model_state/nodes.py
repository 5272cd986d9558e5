"""What a survey is made of: nodes with their parts."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from labeltrace.model_state.kinds import Kind
from labeltrace.model_state.stores import Fixed, Members, Store


class Part(NamedTuple):
    """A place inside a node and what it held; `slots` has labels and values in a fixed order."""

    store: Store
    labels: tuple[Any, ...]
    values: tuple[Any, ...]
    slots: list[tuple[Any, Any]]


class Node(NamedTuple):
    """One value that the walk met.

    Attributes:
        kind: what it is.
        value: the value itself.
        parent: the number of the node inside which it was met first; -1 for none.
        store: the place of the parent that held it.
        label: under which label.
        parts: the places inside it.
    """

    kind: Kind
    value: Any
    parent: int
    store: Store | None
    label: Any
    parts: list[Part]


def registered_tensors(model: nn.Module) -> set[int]:
    """The identities of all parameters and buffers that are registered under the model."""
    found: set[int] = set()
    seen: set[int] = set()
    waiting: list[Any] = [model]
    while waiting:
        module = waiting.pop()
        if not isinstance(module, nn.Module) or id(module) in seen:
            continue
        seen.add(id(module))
        held = vars(module)
        found.update(map(id, held.get("_parameters", {}).values()))
        found.update(map(id, held.get("_buffers", {}).values()))
        waiting += held.get("_modules", {}).values()
    found.discard(id(None))
    return found


def holds_members(store: Store) -> bool:
    """Whether a place holds the members of a set, which have no order."""
    return type(store) is Members or (type(store) is Fixed and isinstance(store.owner, frozenset))
