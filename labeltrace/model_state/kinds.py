"""What kind of value an attribute holds: by value, a container, an object, or taken as it is."""

from __future__ import annotations

import array
import random
import sys
import types
import weakref
from collections import OrderedDict, deque
from contextvars import ContextVar
from enum import Enum
from functools import cached_property, partial, partialmethod
from typing import Any

import torch
from torch import Tensor, nn

from labeltrace.model_state.library_code import is_library_class


class Kind(Enum):
    """The kinds that the walk tells apart; `OPAQUE` is a value known by its identity alone."""

    VALUE = "a value that never changes"
    OPAQUE = "an object known by identity"
    ITERATOR = "an iterator, whose position cannot be seen"
    SEQUENCE = "a tuple, list or deque"
    MEMBERS = "a set"
    MAPPING = "a dict"
    OBJECT = "an object with attributes"
    MODULE = "a module"
    CLASS = "a class"
    TENSOR = "a tensor"
    ARRAY = "a numpy array"
    BYTES = "a bytearray or array"
    GENERATOR = "a random generator"
    FUNCTION = "a Python function"
    WRAPPED = "a method, partial, property or weak reference"
    CELL = "a variable of a closure"
    CONTEXT = "a context variable"
    NAME = "a global"
    NAMESPACE = "a Python module"


SCALARS: frozenset[type] = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, range, type(...)),
        *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size),
    }
)
"""Types that are compared by value."""

EMPTY_TYPES: frozenset[type] = frozenset({dict, OrderedDict, list, set})
"""Types of containers that hold nothing else; an empty one needs no look inside."""

VALUE_CLASSES = frozenset(
    {
        *("fractions.Fraction", "decimal.Decimal", "uuid.UUID", "datetime.datetime"),
        *("datetime.date", "datetime.time", "datetime.timedelta", "pathlib.PosixPath"),
        *("pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath"),
        *("pathlib._local.PosixPath", "pathlib._local.WindowsPath"),
    }
)
"""Immutable classes of Python's library, compared by value."""

BOUND_TYPES = (types.MethodType, types.BuiltinMethodType, types.MethodWrapperType)
WRAPPERS = (partial, partialmethod, property, staticmethod, classmethod, cached_property)

_KINDS: weakref.WeakKeyDictionary[type, Kind] = weakref.WeakKeyDictionary()


def kind_of(value: Any) -> Kind:
    """The kind of a value."""
    cls = type(value)
    if cls in SCALARS:
        return Kind.VALUE
    if cls is tuple and is_plain(value):
        return Kind.VALUE
    found = _KINDS.get(cls)
    if found is None:
        found = _KINDS[cls] = _kind_of_class(cls)
    if found is Kind.WRAPPED and isinstance(value, types.BuiltinMethodType):
        bound = value.__self__
        return Kind.OPAQUE if bound is None or isinstance(bound, types.ModuleType) else found
    return found


def is_plain(value: tuple[Any, ...]) -> bool:
    """Whether a tuple holds scalars and such tuples alone."""
    for item in value:
        if type(item) not in SCALARS and not (type(item) is tuple and is_plain(item)):
            return False
    return True


def _kind_of_class(cls: type) -> Kind:
    """The kind of all objects of a class but plain tuples."""
    numpy_kind = _numpy_kind(cls)
    if numpy_kind is not None:
        return numpy_kind
    for base, kind in _BY_BASE:
        if issubclass(cls, base):
            return kind
    if hasattr(cls, "__wrapped__") or cls.__name__ == "_lru_cache_wrapper":
        return Kind.WRAPPED
    if f"{cls.__module__}.{cls.__qualname__}" in VALUE_CLASSES:
        return Kind.VALUE
    if hasattr(cls, "__next__") and (is_library_class(cls) or cls.__module__ == "builtins"):
        return Kind.ITERATOR
    return Kind.OPAQUE if is_library_class(cls) else Kind.OBJECT


_BY_BASE: tuple[tuple[Any, Kind], ...] = (
    (nn.Module, Kind.MODULE),
    (Tensor, Kind.TENSOR),
    (type, Kind.CLASS),
    (Enum, Kind.OPAQUE),
    ((list, tuple, deque), Kind.SEQUENCE),
    ((set, frozenset), Kind.MEMBERS),
    ((dict, types.MappingProxyType), Kind.MAPPING),
    (types.FunctionType, Kind.FUNCTION),
    ((*BOUND_TYPES, *WRAPPERS, weakref.ref), Kind.WRAPPED),
    (types.CellType, Kind.CELL),
    (ContextVar, Kind.CONTEXT),
    (types.ModuleType, Kind.NAMESPACE),
    ((bytearray, array.array), Kind.BYTES),
    ((torch.Generator, random.Random), Kind.GENERATOR),
    ((types.CodeType, slice), Kind.OPAQUE),
)


def _numpy_kind(cls: type) -> Kind | None:
    """The kind of a class of numpy; numpy is not imported for that."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if issubclass(cls, numpy.ndarray):
        return Kind.ARRAY
    if issubclass(cls, numpy.generic):
        return Kind.VALUE
    drawn = (numpy.random.Generator, numpy.random.RandomState, numpy.random.BitGenerator)
    return Kind.GENERATOR if issubclass(cls, drawn) else None
