"""The parts of a value: the places inside it that hold other values."""

from __future__ import annotations

import types
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property, partial, partialmethod
from typing import Any

from labeltrace.model_state.kinds import Kind
from labeltrace.model_state.stores import (
    ArrayItems,
    Attributes,
    Cell,
    ContextValue,
    Entries,
    Fields,
    Fixed,
    Items,
    Members,
    Store,
    slots_of,
)

FUNCTION_FIELDS = ("__code__", "__defaults__", "__kwdefaults__")


def stores_of(kind: Kind, value: Any) -> list[Store]:
    """The places inside a value of this kind; classes and globals are read by the survey."""
    found = list(_OWN[kind](value)) if kind in _OWN else []
    if kind in _WITH_ATTRIBUTES:
        found += _attributes(value)
    return found


def _attributes(value: Any) -> Iterator[Store]:
    """The `__dict__` and the slots of an object."""
    if isinstance(getattr(value, "__dict__", None), dict):
        yield Attributes(value)
    slots = slots_of(type(value))
    if slots:
        yield Fields(value, slots)


def _sequence(value: Any) -> Iterator[Store]:
    if isinstance(value, tuple):
        items = tuple(tuple.__iter__(value))
        yield Fixed(value, tuple(range(len(items))), items)
    else:
        yield Items(value)


def _members(value: Any) -> Iterator[Store]:
    if isinstance(value, frozenset):
        members = tuple(frozenset.__iter__(value))
        yield Fixed(value, members, members)
    else:
        yield Members(value)


def _mapping(value: Any) -> Iterator[Store]:
    if isinstance(value, dict):
        yield Entries(value)
        if isinstance(value, defaultdict):
            yield Fields(value, ("default_factory",))
    else:  # a read-only view of a dict
        yield Fixed(value, tuple(value), tuple(value.values()))


def _array(value: Any) -> Iterator[Store]:
    if holds_objects(value):
        yield ArrayItems(value)


def holds_objects(array: Any) -> bool:
    """Whether a numpy array holds Python objects, which are walked as those of a list."""
    return bool(array.dtype == object)


def _function(value: types.FunctionType) -> Iterator[Store]:
    yield Fields(value, FUNCTION_FIELDS)
    closure = value.__closure__ or ()
    if closure:
        yield Fixed(value, value.__code__.co_freevars, closure)
    yield Attributes(value)


def _wrapped(value: Any) -> Iterator[Store]:
    if isinstance(value, types.MethodType):
        yield Fixed(value, ("__func__", "__self__"), (value.__func__, value.__self__))
    elif isinstance(value, types.BuiltinMethodType | types.MethodWrapperType):
        yield Fixed(value, ("__name__", "__self__"), (value.__name__, value.__self__))
    elif isinstance(value, partial | partialmethod):
        held = (value.func, value.args, value.keywords)
        yield Fixed(value, ("func", "args", "keywords"), held)
    elif isinstance(value, property):
        yield Fixed(value, ("fget", "fset"), (value.fget, value.fset))
    elif isinstance(value, staticmethod | classmethod):
        yield Fixed(value, ("__func__",), (value.__func__,))
    elif isinstance(value, cached_property):
        yield Fixed(value, ("func",), (value.func,))
    elif isinstance(value, weakref.ref):
        yield Fixed(value, ("referent",), (value(),))
    else:
        yield Fixed(value, ("__wrapped__",), (value.__wrapped__,))


_OWN: dict[Kind, Callable[[Any], Iterator[Store]]] = {
    Kind.SEQUENCE: _sequence,
    Kind.MEMBERS: _members,
    Kind.MAPPING: _mapping,
    Kind.FUNCTION: _function,
    Kind.WRAPPED: _wrapped,
    Kind.ARRAY: _array,
    Kind.CELL: lambda value: iter((Cell(value),)),
    Kind.CONTEXT: lambda value: iter((ContextValue(value),)),
}

_WITH_ATTRIBUTES = frozenset(
    {Kind.OBJECT, Kind.MODULE, Kind.SEQUENCE, Kind.MEMBERS, Kind.MAPPING, Kind.TENSOR}
)
