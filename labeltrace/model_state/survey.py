"""The walk over all Python state that the forward pass of a model can see.

It starts at the model and at torch's global hooks, and follows attributes, containers, plain
objects, modules in lists, functions with their closures and defaults, the methods that `forward`
can call, and the globals that all of these read.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable
from enum import Enum
from typing import Any

import torch
from torch import nn

from labeltrace.model_state.called_names import COMMON_NAMES, Attribute, CalledNames
from labeltrace.model_state.code_reads import functions_of, reads_of
from labeltrace.model_state.kinds import EMPTY_TYPES, SCALARS, Kind, kind_of
from labeltrace.model_state.library_code import installed_package, is_library
from labeltrace.model_state.nodes import Node, Part, holds_members, registered_tensors
from labeltrace.model_state.parts import stores_of
from labeltrace.model_state.special_names import (
    CONSTRUCTORS,
    GLOBAL_HOOKS,
    NEVER_CALLED,
    UNREAD_ATTRIBUTES,
)
from labeltrace.model_state.stores import ABSENT, Attributes, ClassAttribute, GlobalName, Store


class Survey:
    """All state that was met, in the order of the walk.

    Attributes:
        nodes: the values that are more than scalars; the first is the model.
        numbers: the number of each node by the identity of its value; globals have numbers too,
            by their namespace and name.
        empties: containers that were empty.
        live: identities of the parameters and buffers that are registered under the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.nodes: list[Node] = []
        self.numbers: dict[Any, int] = {}
        self.empties: list[Any] = []
        self.live = registered_tensors(model)
        self._called = CalledNames()
        self._packages: set[str | None] = {None}  # whose code is followed: None is the user's
        self._namespaces: list[dict[str, Any]] = []
        self._codes: set[tuple[int, int]] = set()
        self._methods: set[int] = set()  # code whose `self` is known
        self._classes: set[type] = set()
        self._meet(model, -1, None, "")
        for name in GLOBAL_HOOKS:
            self._meet_global(vars(torch.nn.modules.module), name)
        done = 0
        while done < len(self.nodes):
            self._open(done)
            done += 1

    # What is met.

    def _meet(self, value: Any, parent: int, store: Store | None, label: Any) -> None:
        """Number a value, unless it is known or holds nothing that could change."""
        cls = type(value)
        if cls in SCALARS or id(value) in self.numbers:
            return
        if cls in EMPTY_TYPES and not value:
            self.empties.append(value)
            return
        kind = kind_of(value)
        if kind is Kind.VALUE:
            return
        if kind is Kind.OPAQUE:
            if isinstance(value, Enum):
                self._meet_class(cls)
            return
        if kind is Kind.FUNCTION and _taken_as_it_is(value):
            return
        if kind is Kind.CLASS:
            self._meet_class(value, called=True)
        elif kind is Kind.NAMESPACE:
            self._meet_namespace(value)
        else:
            self._add(id(value), Node(kind, value, parent, store, label, []))

    def _meet_class(self, cls: type, *, called: bool = False) -> None:
        """Number the class of an object, or one that code may call, and its bases."""
        if cls in self._classes:
            return
        for base in cls.__mro__:
            library = is_library(base.__module__)
            walked = issubclass(base, nn.Module) if library else self._follows(base.__module__)
            if walked and id(base) not in self.numbers and not (called and library):
                self._add(id(base), Node(Kind.CLASS, base, -1, None, _named(base), []))
        if called and id(cls) in self.numbers:
            for name in CONSTRUCTORS:
                if isinstance(vars(cls).get(name), types.FunctionType):
                    self._add_class_attribute(Attribute(cls, name, vars(cls)[name]))
        else:
            self._classes.add(cls)
        self._call(self._called.meet_class(cls))

    def _follows(self, module: Any) -> bool:
        """Whether the code of a module is followed: the user's, or of a package with a layer."""
        return not is_library(module) and installed_package(module) in self._packages

    def _meet_namespace(self, module: types.ModuleType) -> None:
        """Read of a Python module in an attribute all that is ever read of anything."""
        namespace = vars(module)
        known = any(namespace is other for other in self._namespaces)
        if known or not self._follows(module.__name__):
            return
        self._namespaces.append(namespace)
        for name in sorted(self._called.names & namespace.keys()):
            self._meet_global(namespace, name)

    def _meet_global(self, namespace: dict[str, Any], name: str) -> Any:
        """Number a global, and return its value."""
        identity = (id(namespace), name)
        value = namespace.get(name, ABSENT)
        if identity not in self.numbers:
            label = f"{namespace.get('__name__', '')}.{name}"
            self._add(identity, Node(Kind.NAME, namespace, -1, None, label, []))
            store = GlobalName(namespace, name)
            self.nodes[-1].parts.append(Part(store, (name,), (value,), [(name, value)]))
        return value

    def _add(self, identity: Any, node: Node) -> None:
        self.numbers[identity] = len(self.nodes)
        self.nodes.append(node)

    # What is inside.

    def _open(self, number: int) -> None:
        """Read the parts of a node and meet what they hold."""
        node = self.nodes[number]
        kind, value = node.kind, node.value
        if kind is Kind.NAME:
            part = node.parts[0]
            self._meet(part.values[0], number, part.store, part.labels[0])
        elif kind is Kind.CLASS:
            self._open_class(value)
        elif kind is not Kind.TENSOR or id(value) not in self.live:
            for store in stores_of(kind, value):
                self._open_part(number, store)
        if kind in (Kind.MODULE, Kind.OBJECT, Kind.MAPPING, Kind.SEQUENCE):
            if kind is Kind.MODULE:
                self._packages.update(map(installed_package, _modules_of(type(value))))
            self._meet_class(type(value))
        elif kind is Kind.FUNCTION:
            self._follow(value.__code__, value.__globals__)

    def _open_part(self, number: int, store: Store) -> None:
        labels, values = store.read()
        slots = list(zip(labels, values, strict=True))
        if type(store) is Attributes:
            if isinstance(store.owner, nn.Module):
                slots = [slot for slot in slots if slot[0] not in UNREAD_ATTRIBUTES]
            slots.sort(key=_name)
        elif holds_members(store):
            slots = sorted(
                [slot for slot in slots if kind_of(slot[1]) is not Kind.VALUE], key=_identity
            )
        self.nodes[number].parts.append(Part(store, labels, values, slots))
        for label, value in slots:
            if type(value) not in SCALARS:
                self._meet(value, number, store, label)
            if type(label) not in SCALARS and label is not value:
                self._meet(label, number, store, label)

    def _open_class(self, cls: type) -> None:
        """Read the attributes of a class: its settings, and the functions that may be called."""
        whole = is_library(cls.__module__)
        for name, value in sorted(vars(cls).items()):
            special = name.startswith("__") and name.endswith("__")
            if not hasattr(value, "__get__"):
                called = not special and name != "_abc_impl"
            elif whole or name == "forward" or self._called.is_called(cls, name):
                called = True
            else:
                called = special and name not in NEVER_CALLED
                if not called:
                    self._called.wait(Attribute(cls, name, value))
            if called:
                self._add_class_attribute(Attribute(cls, name, value))
            if called and whole and cls is not nn.Module:
                self._meet_library_functions(value)

    def _meet_library_functions(self, value: Any) -> None:
        """Meet the functions that a layer of torch calls: `torch.nn.functional` may be patched."""
        if not isinstance(value, types.FunctionType) or not _taken_as_it_is(value):
            return
        for chain in reads_of(value.__code__).chains:
            self._follow_chain(value.__globals__, chain)

    def _add_class_attribute(self, attribute: Attribute) -> None:
        owner, name, value = attribute
        number = self.numbers[id(owner)]
        store = ClassAttribute(owner, name)
        self.nodes[number].parts.append(Part(store, (name,), (value,), [(name, value)]))
        for function in functions_of(value):
            if self._follows(function.__globals__.get("__name__")):
                reads = reads_of(function.__code__)
                self._methods.add(id(function.__code__))
                self._call(self._called.read_own(owner, reads.own | reads.strings))
        self._meet(value, number, store, name)

    def _call(self, attributes: Iterable[Attribute]) -> None:
        for attribute in attributes:
            self._add_class_attribute(attribute)

    # What code reads.

    def _follow(self, code: types.CodeType, namespace: dict[str, Any]) -> None:
        """Meet the globals that a function of the user's code reads, and what it may call."""
        module = namespace.get("__name__")
        if not self._follows(module) or (id(code), id(namespace)) in self._codes:
            return
        self._codes.add((id(code), id(namespace)))
        reads = reads_of(code)
        for chain in reads.chains:
            self._follow_chain(namespace, chain)
        names = reads.others if id(code) in self._methods else reads.others | reads.own
        if installed_package(str(module)) is None:
            names |= reads.strings
        else:
            names -= COMMON_NAMES
        for name, taken in reads.imports:
            imported = sys.modules.get(name)
            if imported is not None and self._follows(name):
                for attribute in sorted({*taken, *names} & vars(imported).keys()):
                    self._meet_global(vars(imported), attribute)
        new = names - self._called.names
        self._call(self._called.read(names))
        for other in self._namespaces:
            for name in sorted(new & other.keys()):
                self._meet_global(other, name)

    def _follow_chain(self, namespace: dict[str, Any], chain: tuple[str, ...]) -> None:
        """Meet a global; of a Python module, its attribute, and so on."""
        for name in chain:
            value = self._meet_global(namespace, name)
            if not isinstance(value, types.ModuleType):
                return
            namespace = vars(value)


def _name(slot: tuple[Any, Any]) -> str:
    return str(slot[0])


def _identity(slot: tuple[Any, Any]) -> int:
    return id(slot[1])


def _taken_as_it_is(function: types.FunctionType) -> bool:
    """Whether a function is a library's own; one with a closure may wrap one of the user's."""
    return not function.__closure__ and is_library(function.__globals__.get("__name__"))


def _named(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _modules_of(cls: type) -> list[str]:
    return [base.__module__ for base in cls.__mro__ if not is_library(base.__module__)]
