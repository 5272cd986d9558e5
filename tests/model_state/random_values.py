"""Random nested Python values, each with the edits in place that it allows."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

EDITED = "edited"


class Season(Enum):
    SUMMER = "summer"
    WINTER = "winter"


@dataclass
class Record:
    held: Any


class Slots:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


def closing_over(held: Any) -> Callable[[], Any]:
    return lambda: held


def given(held: Any, by: Any) -> Any:
    return held, by


@dataclass(frozen=True)
class Edit:
    """A change in place: where it is, as `differences` names it, and how to make it."""

    path: str
    make: Callable[[], Any]


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.0, -0.0, 0.5, float("inf"), float("nan")]),
    st.text("ab", max_size=2),
    st.binary(max_size=2),
    st.sampled_from(Season),
    st.sampled_from([torch.float32, torch.device("cpu"), range(3), np.float32(0.5)]),
    st.frozensets(st.integers(0, 3) | st.text("ab", max_size=1), max_size=3),
)

KINDS = (
    *("tuple", "list", "dict", "deque", "record", "slots", "namespace", "closure", "partial"),
    *("cycle", "default"),
)
CONTENTS = ("set", "tensor", "array", "objects", "bytearray")

SPECS: st.SearchStrategy[Any] = st.recursive(
    LEAVES.map(lambda leaf: ("leaf", leaf)) | st.sampled_from(CONTENTS).map(lambda kind: (kind,)),
    lambda inner: st.tuples(st.sampled_from(KINDS), st.lists(inner, max_size=3)),
    max_leaves=8,
)
"""What a value is made of, from which `build` makes it anew each time."""


def build(spec: Any, path: str, edits: list[Edit]) -> Any:
    """The value of a spec; its edits in place are added to `edits`."""
    kind = spec[0]
    if kind == "leaf":
        return spec[1]
    if kind in CONTENTS:
        return _content(kind, path, edits)
    specs = spec[1]

    def inside(label: str, index: int = 0) -> Any:
        return build(specs[index], path + label, edits) if index < len(specs) else None

    indices = range(len(specs))
    if kind == "tuple":
        return tuple([inside(f"[{index}]", index) for index in indices])
    if kind in ("list", "cycle", "deque"):
        items: Any = [inside(f"[{index}]", index) for index in indices]
        items = deque(items) if kind == "deque" else items
        if kind == "cycle":
            items.append(items)
        edits.append(Edit(path, lambda: items.append(EDITED)))
        if items:
            edits.append(Edit(f"{path}[0]", lambda: items.__setitem__(0, EDITED)))
        return items
    if kind == "dict":
        table = {f"key{index}": inside(f"['key{index}']", index) for index in indices}
        edits.append(Edit(f"{path}['new']", lambda: table.update(new=None)))
        for key in table:
            edits.append(Edit(f"{path}[{key!r}]", lambda key=key: table.update({key: EDITED})))
            edits.append(Edit(f"{path}[{key!r}]", lambda key=key: table.pop(key)))
        return table
    if kind == "closure":
        function = closing_over(inside(".held"))
        (cell,) = function.__closure__ or ()
        edits.append(Edit(f"{path}.held", lambda: setattr(cell, "cell_contents", EDITED)))
        return function
    if kind == "partial":
        bound = functools.partial(given, by=inside(".keywords['by']"))
        edits.append(Edit(f"{path}.keywords['by']", lambda: bound.keywords.update(by=EDITED)))
        return bound
    owner = {"record": Record, "slots": Slots}.get(kind, _namespace)(inside(".held"))
    edits.append(Edit(f"{path}.held", lambda: setattr(owner, "held", EDITED)))
    if kind == "namespace":
        edits.append(Edit(f"{path}.new", lambda: setattr(owner, "new", EDITED)))
    return owner


def _namespace(held: Any) -> SimpleNamespace:
    return SimpleNamespace(held=held)


def _content(kind: str, path: str, edits: list[Edit]) -> Any:
    if kind == "set":
        members: set[Any] = {1, "a", (2, 3)}
        edits.append(Edit(path, lambda: members.add(EDITED)))
        edits.append(Edit(path, members.clear))
        return members
    if kind == "tensor":
        tensor = torch.tensor([1.0, float("nan"), -0.0])
        edits.append(Edit(path, lambda: tensor.data.neg_()))
        edits.append(Edit(path, lambda: tensor.fill_(5)))
        return tensor
    if kind == "bytearray":
        raw = bytearray(b"ab")
        edits.append(Edit(path, raw.reverse))
        return raw
    array = np.array([1, None], object) if kind == "objects" else np.array([1.0, 2.0])
    path = f"{path}[0]" if kind == "objects" else path
    edits.append(Edit(path, lambda: array.__setitem__(0, 7)))
    return array


def render(value: Any, seen: tuple[int, ...] = ()) -> Any:
    """A value spelled out, by code that knows nothing of the library."""
    if id(value) in seen:
        return "above"
    seen = (*seen, id(value))
    if isinstance(value, torch.Tensor):
        return ("tensor", repr(value.tolist()))
    if isinstance(value, np.ndarray):
        return ("array", repr(value.tolist()))
    if isinstance(value, list | tuple | deque):
        return (type(value), [render(item, seen) for item in value])
    if isinstance(value, dict):
        return (type(value), [(key, render(item, seen)) for key, item in value.items()])
    if isinstance(value, Record | Slots):
        return (type(value), render(value.held, seen))
    if isinstance(value, SimpleNamespace):
        return (type(value), render(vars(value), seen))
    if isinstance(value, FunctionType):
        return ("function", [render(cell.cell_contents, seen) for cell in value.__closure__ or ()])
    if isinstance(value, functools.partial):
        return ("partial", render(value.args, seen), render(value.keywords, seen))
    if isinstance(value, set | frozenset):
        return (type(value), sorted(map(repr, value)))
    return repr(value)
