"""Places that hold references and can be read, written back and watched: the parts of an object."""

from __future__ import annotations

import types
from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any


class Absent:
    """The value of a global, cell or slot that is not set."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT = Absent()

Contents = tuple[tuple[Any, ...], tuple[Any, ...]]
"""Labels (indices, keys or names) and what is stored under each."""


@dataclass(frozen=True, slots=True)
class Store:
    """A place that holds references; the base of all such places.

    Attributes:
        owner: the object whose place it is.
    """

    owner: Any

    def read(self) -> Contents:
        """What is stored at present."""
        raise NotImplementedError

    def write(self, labels: Sequence[Any], values: Sequence[Any]) -> None:
        """Put back what `read` returned, into the same object."""
        raise NotImplementedError

    def views(self) -> tuple[Collection[Any], ...] | None:
        """Live views of all that `read` returns; None where there are none."""
        return None


class Attributes(Store):
    """The `__dict__` of an object."""

    def read(self) -> Contents:
        held = vars(self.owner)
        return tuple(held), tuple(held.values())

    def write(self, labels: Sequence[Any], values: Sequence[Any]) -> None:
        held = vars(self.owner)
        held.clear()
        held.update(zip(labels, values, strict=True))

    def views(self) -> tuple[Collection[Any], ...]:
        held = vars(self.owner)
        return held.keys(), held.values()


class Entries(Store):
    """The entries of a dict."""

    def read(self) -> Contents:
        keys = tuple(self._base().keys(self.owner))
        return keys, tuple([self._base().__getitem__(self.owner, key) for key in keys])

    def write(self, labels: Sequence[Any], values: Sequence[Any]) -> None:
        base = self._base()
        base.clear(self.owner)
        for label, value in zip(labels, values, strict=True):
            base.__setitem__(self.owner, label, value)

    def views(self) -> tuple[Collection[Any], ...]:
        base = self._base()
        return base.keys(self.owner), base.values(self.owner)

    def _base(self) -> type[dict[Any, Any]]:
        return OrderedDict if isinstance(self.owner, OrderedDict) else dict


class Items(Store):
    """The items of a list or a deque."""

    def read(self) -> Contents:
        values = tuple(self._base().__iter__(self.owner))
        return tuple(range(len(values))), values

    def write(self, labels: Sequence[Any], values: Sequence[Any]) -> None:
        base = self._base()
        base.clear(self.owner)
        base.extend(self.owner, values)

    def views(self) -> tuple[Collection[Any], ...] | None:
        return (self.owner,) if type(self.owner) in (list, deque) else None

    def _base(self) -> Any:
        return deque if isinstance(self.owner, deque) else list


class ArrayItems(Store):
    """The items of a numpy array of objects."""

    def read(self) -> Contents:
        values = tuple(self.owner.flat)
        return tuple(range(len(values))), values

    def write(self, labels: Sequence[Any], values: Sequence[Any]) -> None:
        places = product(*map(range, self.owner.shape))
        for place, value in zip(places, values, strict=True):
            self.owner[place] = value


class Members(Store):
    """The members of a set, each its own label."""

    def read(self) -> Contents:
        members = tuple(set.__iter__(self.owner))
        return members, members

    def write(self, labels: Sequence[Any], values: Sequence[Any]) -> None:
        set.clear(self.owner)
        set.update(self.owner, values)

    def views(self) -> tuple[Collection[Any], ...] | None:
        return (self.owner,) if type(self.owner) is set else None


@dataclass(frozen=True, slots=True)
class Fixed(Store):
    """What an immutable object refers to: a tuple, a method."""

    labels: tuple[Any, ...]
    values: tuple[Any, ...]

    def read(self) -> Contents:
        return self.labels, self.values

    def write(self, labels: Sequence[Any], values: Sequence[Any]) -> None:
        return

    def views(self) -> tuple[Collection[Any], ...]:
        return ()


@dataclass(frozen=True, slots=True)
class Fields(Store):
    """Fields of an object outside its `__dict__`: slots, the code and defaults of a function."""

    names: tuple[str, ...]

    def read(self) -> Contents:
        return self.names, tuple([_field(self.owner, name) for name in self.names])

    def write(self, labels: Sequence[Any], values: Sequence[Any]) -> None:
        for name, value in zip(labels, values, strict=True):
            if value is _field(self.owner, name):
                continue
            if value is ABSENT:
                object.__delattr__(self.owner, name)
            else:
                object.__setattr__(self.owner, name, value)


def _field(owner: Any, name: str) -> Any:
    """A field without the object's own `__getattr__`."""
    try:
        return object.__getattribute__(owner, name)
    except AttributeError:
        return ABSENT


class Cell(Store):
    """The variable of a closure."""

    def read(self) -> Contents:
        try:
            return ("cell_contents",), (self.owner.cell_contents,)
        except ValueError:  # an empty cell
            return ("cell_contents",), (ABSENT,)

    def write(self, labels: Sequence[Any], values: Sequence[Any]) -> None:
        if values[0] is not ABSENT:
            self.owner.cell_contents = values[0]
        elif self.read()[1][0] is not ABSENT:
            del self.owner.cell_contents


class ContextValue(Store):
    """The value of a context variable in the present context."""

    def read(self) -> Contents:
        return ("value",), (self.owner.get(ABSENT),)

    def write(self, labels: Sequence[Any], values: Sequence[Any]) -> None:
        if values[0] is not ABSENT:  # a variable cannot be unset
            self.owner.set(values[0])


@dataclass(frozen=True, slots=True)
class GlobalName(Store):
    """A name in the namespace of a Python module; the owner is the namespace, a dict."""

    name: str

    def read(self) -> Contents:
        return (self.name,), (self.owner.get(self.name, ABSENT),)

    def write(self, labels: Sequence[Any], values: Sequence[Any]) -> None:
        if values[0] is ABSENT:
            self.owner.pop(self.name, None)
        else:
            self.owner[self.name] = values[0]


@dataclass(frozen=True, slots=True)
class ClassAttribute(Store):
    """An attribute of a class itself, not of its bases."""

    name: str

    def read(self) -> Contents:
        return (self.name,), (vars(self.owner).get(self.name, ABSENT),)

    def write(self, labels: Sequence[Any], values: Sequence[Any]) -> None:
        present = vars(self.owner).get(self.name, ABSENT)
        if values[0] is present:
            return
        if values[0] is ABSENT:
            type.__delattr__(self.owner, self.name)
        else:
            type.__setattr__(self.owner, self.name, values[0])


def slots_of(cls: type) -> tuple[str, ...]:
    """The names of the slots of a class and its bases; those that a subclass hides do not count."""
    return tuple(
        name
        for base in cls.__mro__
        for name, member in vars(base).items()
        if isinstance(member, types.MemberDescriptorType)
        and "__slots__" in vars(base)
        and getattr(cls, name, None) is member
    )
