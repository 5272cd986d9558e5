"""Whether two graphs of objects are the same: values, types, and who shares memory with whom.

A twin is built like the other, so each object of one has its counterpart in the other. The walk
goes along both at a time, through modules, containers, closures and objects of any class.
"""

from __future__ import annotations

import functools
import random
import weakref
from collections.abc import Callable, Mapping
from enum import Enum
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.hooks import RemovableHandle

BY_VALUE = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    Enum,
    slice,
    range,
    type(Ellipsis),
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    torch.Size,
    CodeType,
    ModuleType,
    BuiltinFunctionType,
    random.Random,
)
HOOKS = {name for name, value in vars(nn.Module()).items() if "hook" in name and value is not None}
WITHOUT_STATE = (weakref.ref, RemovableHandle, torch._C.ScriptObject)
IMMUTABLE = (tuple, frozenset, FunctionType)  # constants of code may be one object or several


class Mirror:
    """Compares what it is given, and remembers which object is whose counterpart."""

    def __init__(self) -> None:
        self._pairs: dict[int, int] = {}
        self._done: set[int] = set()
        self._storages: dict[int, int] = {}
        self._alive: list[Any] = []

    def same(self, plain: Any, other: Any, path: str) -> None:
        """Fails at the first difference, with the path to it."""
        if isinstance(plain, (*BY_VALUE, type)):
            self._value(plain, other, path)
            return
        if not isinstance(plain, IMMUTABLE):
            known = self._pairs.setdefault(id(plain), id(other))
            assert known == id(other), f"{path}: another object than elsewhere"
        if self._seen(plain):
            return
        self._alive += [plain, other]
        _same_class(plain, other, path)
        self._compare(plain)(plain, other, path)

    def _seen(self, plain: Any) -> bool:
        if id(plain) in self._done:
            return True
        self._done.add(id(plain))
        return False

    def _compare(self, value: Any) -> Callable[[Any, Any, str], None]:
        for kinds, compare in (
            (Tensor, self._tensor),
            (nn.Module, self._module),
            (Mapping, self._mapping),
            ((list, tuple), self._sequence),
            ((set, frozenset), self._set),
            (FunctionType, self._function),
            (MethodType, self._method),
            (functools.partial, self._partial),
            (property, self._property),
            (GeneratorType, self._running),
            (np.ndarray, self._array),
            (torch.Generator, _same_generator),
            (np.random.Generator, _same_numpy_generator),
            (np.random.RandomState, _same_numpy_state),
        ):
            if isinstance(value, kinds):
                return compare
        return self._object

    # Values.

    def _value(self, plain: Any, other: Any, path: str) -> None:
        if isinstance(plain, type):
            self._class(plain, other, path)
        elif isinstance(plain, random.Random):
            assert plain.getstate() == other.getstate(), path
        elif isinstance(plain, float) and plain != plain:
            assert isinstance(other, float) and other != other, f"{path}: {other} is no nan"
        else:
            assert type(plain) is type(other), f"{path}: {type(other)}, not {type(plain)}"
            same = plain is other or plain == other or _of_twins(plain, other)
            assert same, f"{path}: {other!r}, not {plain!r}"

    def _class(self, plain: type, other: Any, path: str) -> None:
        assert isinstance(other, type) and plain.__qualname__ == other.__qualname__, path
        if plain is other or self._seen(plain):
            return
        for name in ("__dict__", "__weakref__", "__doc__", "__module__"):
            assert (name in vars(plain)) == (name in vars(other)), path
        skipped = {"__dict__", "__weakref__", "__static_attributes__", "_abc_impl"}
        named = [{k: v for k, v in vars(c).items() if k not in skipped} for c in (plain, other)]
        self._items(named[0], named[1], path)

    def _array(self, plain: Any, other: Any, path: str) -> None:
        assert plain.dtype == other.dtype, path
        assert np.array_equal(plain, other), f"{path}: other values"

    def _tensor(self, plain: Tensor, other: Tensor, path: str) -> None:
        assert not isinstance(other, FakeTensor), f"{path} is a FakeTensor"
        for name in ("shape", "dtype", "device", "layout", "requires_grad", "is_leaf"):
            found, expected = getattr(other, name), getattr(plain, name)
            assert found == expected, f"{path}.{name}: {found}, not {expected}"
        assert (plain.grad_fn is None) == (other.grad_fn is None), f"{path}.grad_fn"
        assert plain.is_inference() == other.is_inference(), f"{path}.is_inference()"
        assert plain.retains_grad == other.retains_grad, f"{path}.retains_grad"
        if plain.layout is torch.strided:
            assert plain.stride() == other.stride(), f"{path}.stride()"
            pair = [tensor.untyped_storage()._cdata for tensor in (plain, other)]
            shared = self._storages.setdefault(pair[0], pair[1])
            assert shared == pair[1], f"{path} shares memory with another tensor than its twin"
        assert _same_bits(plain, other), f"{path}: other values"
        if plain.is_leaf or plain.retains_grad:
            self.same(plain.grad, other.grad, f"{path}.grad")
        self._items(vars(plain), vars(other), path)

    # Containers.

    def _items(self, plain: Mapping[Any, Any], other: Mapping[Any, Any], path: str) -> None:
        names = [list(map(_key, items)) for items in (plain, other)]
        assert names[0] == names[1], f"{path} has {names[1]}, not {names[0]}"
        pairs = zip(plain.items(), other.items(), strict=True)
        for (key, value), (other_key, other_value) in pairs:
            self.same(key, other_key, f"{path} key")
            self.same(value, other_value, f"{path}.{key}")

    def _mapping(self, plain: Mapping[Any, Any], other: Mapping[Any, Any], path: str) -> None:
        self._items(plain, other, path)
        if type(plain) is not dict and hasattr(plain, "__dict__"):
            self._items(vars(plain), vars(other), path)

    def _sequence(self, plain: Any, other: Any, path: str) -> None:
        assert len(plain) == len(other), f"{path} has {len(other)} items, not {len(plain)}"
        for index, (value, other_value) in enumerate(zip(plain, other, strict=True)):
            self.same(value, other_value, f"{path}[{index}]")

    def _set(self, plain: Any, other: Any, path: str) -> None:
        assert plain == other, f"{path}: {other}, not {plain}"

    def _module(self, plain: nn.Module, other: nn.Module, path: str) -> None:
        if isinstance(plain, torch.jit.ScriptModule):  # the rest of it is written in C++
            state = [dict(module.state_dict(keep_vars=True)) for module in (plain, other)]
            self._items(state[0], state[1], path)
            return
        found = [dict(vars(module)) for module in (plain, other)]
        for name in HOOKS & found[0].keys():  # their keys count all hooks of a process
            if isinstance(found[0][name], Mapping):
                found[0][name], found[1][name] = (list(each[name].values()) for each in found)
        self._items(found[0], found[1], path)
        self.same(type(plain), type(other), f"{path} class")

    # Code.

    def _function(self, plain: FunctionType, other: FunctionType, path: str) -> None:
        assert plain.__code__ == other.__code__, f"{path}: another function"
        self.same(plain.__defaults__, other.__defaults__, f"{path} defaults")
        self.same(plain.__kwdefaults__, other.__kwdefaults__, f"{path} defaults")
        cells = zip(plain.__closure__ or (), other.__closure__ or (), strict=True)
        for name, (cell, other_cell) in zip(plain.__code__.co_freevars, cells, strict=True):
            self.same(_inside(cell), _inside(other_cell), f"{path} variable {name}")
        attributes = [dict(vars(function)) for function in (plain, other)]
        self._items(attributes[0], attributes[1], path)

    def _method(self, plain: MethodType, other: MethodType, path: str) -> None:
        self.same(plain.__func__, other.__func__, path)
        self.same(plain.__self__, other.__self__, f"{path} of")

    def _partial(self, plain: Any, other: Any, path: str) -> None:
        self.same(plain.func, other.func, path)
        self.same(plain.args, other.args, f"{path}.args")
        self.same(plain.keywords, other.keywords, f"{path}.keywords")

    def _property(self, plain: property, other: property, path: str) -> None:
        self.same(plain.fget, other.fget, path)
        self.same(plain.fset, other.fset, path)

    def _running(self, plain: Any, other: Any, path: str) -> None:
        frames = [value.gi_frame for value in (plain, other)]
        assert (frames[0] is None) == (frames[1] is None), path
        if frames[0] is not None:
            assert frames[0].f_lasti == frames[1].f_lasti, f"{path} stands elsewhere"
            self._items(frames[0].f_locals, frames[1].f_locals, path)

    def _object(self, plain: Any, other: Any, path: str) -> None:
        if isinstance(plain, WITHOUT_STATE) or type(plain).__module__.startswith("torch._C"):
            return
        names = [n for c in type(plain).__mro__ for n in getattr(c, "__slots__", ())]
        fields = [n for n in names if hasattr(plain, n) and n not in ("__dict__", "__weakref__")]
        for name in fields:
            self.same(getattr(plain, name), getattr(other, name), f"{path}.{name}")
        if hasattr(plain, "__dict__"):
            self._items(vars(plain), vars(other), path)
        elif not fields:
            self._reduced(plain, other, path)

    def _reduced(self, plain: Any, other: Any, path: str) -> None:
        """An object of a class written in C: what it would be rebuilt from."""
        if repr(plain) == repr(other) or plain == other:
            return
        found = [value.__reduce__() for value in (plain, other)]
        self.same(found[0], found[1], path)


def _same_class(plain: Any, other: Any, path: str) -> None:
    expected, found = type(plain), type(other)
    same = expected is found or expected.__qualname__ == found.__qualname__
    assert same, f"{path} is of {found}, not {expected}"


def _same_bits(plain: Tensor, other: Tensor) -> bool:
    with torch.no_grad():
        if plain.layout is not torch.strided:
            plain, other = plain.to_dense(), other.to_dense()
        flat = [
            tensor.detach().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)
            for tensor in (plain, other)
        ]
        return torch.equal(flat[0], flat[1])


def _same_generator(plain: torch.Generator, other: torch.Generator, path: str) -> None:
    assert torch.equal(plain.get_state(), other.get_state()), f"{path} stands elsewhere"


def _same_numpy_generator(plain: Any, other: Any, path: str) -> None:
    assert plain.bit_generator.state == other.bit_generator.state, f"{path} stands elsewhere"


def _same_numpy_state(plain: Any, other: Any, path: str) -> None:
    assert str(plain.get_state()) == str(other.get_state()), f"{path} stands elsewhere"


def _key(key: Any) -> Any:
    return key if isinstance(key, BY_VALUE) else type(key).__qualname__


def _of_twins(plain: Any, other: Any) -> bool:
    """Members of enumerations that each twin defines for itself, methods of their objects."""
    if isinstance(plain, BuiltinFunctionType):
        return plain.__qualname__ == other.__qualname__
    return isinstance(plain, Enum) and plain.name == other.name


def _inside(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable has no value yet
        return None
