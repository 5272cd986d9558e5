"""Where a value of a survey is, as a person would write it: `blocks.3.sizes[1]`."""

from __future__ import annotations

from typing import Any

from labeltrace.model_state.kinds import Kind
from labeltrace.model_state.nodes import holds_members
from labeltrace.model_state.stores import Cell, Entries, GlobalName, Store
from labeltrace.model_state.survey import Survey

REGISTRIES = frozenset({"_modules", "_parameters", "_buffers"})
"""The dicts of a module whose entries are attributes to its users."""


def path_of(survey: Survey, number: int) -> str:
    """Where a node was met first; of a global and a class the dotted name."""
    node = survey.nodes[number]
    if node.parent < 0:
        return str(node.label)
    return path_inside(survey, node.parent, node.store, node.label)


def path_inside(survey: Survey, number: int, store: Store | None, label: Any) -> str:
    """Where something inside a node is, by its place there and its label."""
    if isinstance(store, Cell | GlobalName):
        return path_of(survey, number)
    owner = owner_of(survey, number)
    if owner is not None and isinstance(store, Entries):
        return f"{path_of(survey, owner)}.{label}".removeprefix(".")
    return f"{path_of(survey, number)}{suffix(store, label)}".removeprefix(".")


def owner_of(survey: Survey, number: int) -> int | None:
    """The module of which a node is a dict of submodules, parameters or buffers; None if none."""
    node = survey.nodes[number]
    if node.kind is not Kind.MAPPING or node.parent < 0 or node.label not in REGISTRIES:
        return None
    return node.parent if survey.nodes[node.parent].kind is Kind.MODULE else None


def suffix(store: Store | None, label: Any) -> str:
    """How a label is written after the path of its owner."""
    if isinstance(store, Entries):
        return f"[{label!r}]"
    if store is not None and holds_members(store):
        return f"{{{label!r}}}"
    return f".{label}" if isinstance(label, str) else f"[{label!r}]"
