"""A survey as a flat tuple that is equal for equal state: the content of a key."""

from __future__ import annotations

import ctypes
import sys
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import Buffer, Parameter

from labeltrace.model_state.kinds import EMPTY_TYPES, SCALARS, Kind, kind_of
from labeltrace.model_state.nodes import Node, holds_members
from labeltrace.model_state.stores import slots_of
from labeltrace.model_state.survey import Survey

SMALL = 16_384
"""Arrays and plain tensors of up to so many bytes are compared by content too."""

BY_IDENTITY = frozenset(
    {Kind.MODULE, Kind.CLASS, Kind.GENERATOR, Kind.ITERATOR, Kind.NAME, Kind.CONTEXT}
)
"""Kinds of nodes for which another object that looks the same is another state."""

DATA_CLASSES = (int, float, complex, str, bytes)


class Tokens:
    """Writes the tokens of surveys.

    Attributes:
        tokens: what has been written.
        kept: weak references, and objects that allow none, whose identities are among the tokens.
            While they are kept, no other object can have the identity.
    """

    def __init__(self, survey: Survey) -> None:
        self.tokens: list[Any] = []
        self.kept: list[Any] = []
        self._survey = survey
        for node in survey.nodes:
            self._write(node)

    def _write(self, node: Node) -> None:
        kind, value = node.kind, node.value
        self.tokens += (kind.name, self._identity(type(value)))
        if kind in BY_IDENTITY or (kind is Kind.OBJECT and not is_transparent(type(value))):
            self.tokens.append(self._identity(value))
        if kind is Kind.NAME:
            self.tokens.append(node.label)
        elif kind is Kind.TENSOR:
            self._write_tensor(value)
        elif kind is Kind.ARRAY:
            self.tokens.append(array_content(value) or self._identity(value))
        elif kind is Kind.BYTES:
            self.tokens.append(bytes(value))
        elif isinstance(value, DATA_CLASSES):
            self.tokens.append(_data(value))
        for part in node.parts:
            self.tokens.append(len(part.labels))
            if holds_members(part.store):
                self.tokens.append(self._scalars_of_set(part.values))
            for label, held in part.slots:
                self._write_slot(label)
                if held is not label:
                    self._write_slot(held)

    def _write_slot(self, value: Any) -> None:
        cls = type(value)
        if cls in SCALARS:
            self.tokens += (cls, value if cls not in (float, complex) else number_content(value))
            return
        number = self._survey.numbers.get(id(value))
        if number is not None:
            self.tokens += ("node", number)
        elif cls in EMPTY_TYPES and not value:
            self.tokens += (cls, "empty")
        elif kind_of(value) is Kind.VALUE:
            self.tokens += (cls, value_content(value))
        elif cls is slice:
            self.tokens += (cls, repr(value))
        else:
            self.tokens += ("object", self._identity(value))

    def _scalars_of_set(self, members: tuple[Any, ...]) -> frozenset[Any]:
        return frozenset([(type(m), value_content(m)) for m in members if kind_of(m) is Kind.VALUE])

    def _write_tensor(self, value: Tensor) -> None:
        live = id(value) in self._survey.live
        self.tokens.append(tensor_form(value))
        if not live:
            self.tokens += (self._identity(value), tensor_content(value))

    def _identity(self, value: Any) -> int:
        """The identity of an object as long as it lives."""
        try:
            kept = weakref.ref(value)
        except TypeError:  # it allows no weak reference
            kept = value
        self.kept.append(kept)
        return id(kept)


def tensor_form(value: Tensor) -> tuple[Any, ...]:
    """What a graph treats as constant about a tensor that it reads live."""
    if torch.nn.parameter.is_lazy(value) or value.is_nested:
        return (type(value), value.device, value.dtype, value.requires_grad)
    strides = value.stride() if value.layout is torch.strided else None
    known = (value.shape, strides, value.dtype, value.device)
    return (type(value), *known, value.layout, value.requires_grad)


def tensor_content(value: Tensor) -> tuple[Any, ...]:
    """What shows that a plain tensor was written to: its version, and if it is small its bytes."""
    version = None if value.is_inference() else value._version
    strided = value.layout is torch.strided and not value.is_nested
    if type(value) not in (Tensor, Parameter, Buffer) or not strided:
        return (version,)
    if value.device.type != "cpu" or value.numel() == 0:
        return (version, None if value.device.type == "meta" else value.data_ptr())
    storage = value.untyped_storage()
    if storage.device.type != "cpu" or storage.nbytes() > SMALL:
        return (version, value.data_ptr())
    content = ctypes.string_at(storage.data_ptr(), storage.nbytes())
    return (version, value.storage_offset(), content)


def array_content(value: Any) -> tuple[Any, ...] | None:
    """The content of a small numpy array; None for one that is known by identity alone."""
    if value.dtype.hasobject or value.nbytes > SMALL:
        return None
    return (value.dtype.str, value.shape, value.strides, value.tobytes())


def number_content(value: float | complex) -> Any:
    """A number such that NaN equals itself, and zero does not equal minus zero."""
    return repr(value) if value == 0 or value != value or type(value) is complex else value


def value_content(value: Any) -> Any:
    """An immutable value such that 1, 1.0 and True differ, also inside tuples."""
    cls = type(value)
    if cls is tuple:
        return tuple([(type(item), value_content(item)) for item in value])
    if cls is float or cls is complex:
        return number_content(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return (value.dtype.str, value.tobytes())
    return value


def is_transparent(cls: type) -> bool:
    """Whether attributes and slots are all that an object of this class has."""
    if issubclass(cls, DATA_CLASSES):
        return True  # their data are written beside the attributes
    fields = len(slots_of(cls)) + (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
    known = object.__basicsize__ + fields * ctypes.sizeof(ctypes.c_void_p)
    return cls.__itemsize__ == 0 and cls.__basicsize__ <= known


def _data(value: Any) -> Any:
    """The data of an object of a subclass of a number or a string."""
    base = next(cls for cls in DATA_CLASSES if isinstance(value, cls))
    return base.__repr__(value)
