"""Which methods of the classes that were met may be called, judged by the names that code reads.

`self.step(x)` in a method may call `step` of any class that shares an object with the method's
class.  `other.step(x)` may call `step` of any class at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn

COMMON_NAMES = frozenset(
    name for kind in (Tensor, nn.Module, dict, list, set, str) for name in dir(kind)
)
"""Names that in installed packages are those of tensors, modules and containers."""


class Attribute(NamedTuple):
    """An attribute of a class that waits for its name to be read."""

    owner: type
    name: str
    value: Any


class CalledNames:
    """The names that have been read so far, and the methods that nobody has named yet."""

    def __init__(self) -> None:
        self.names: set[str] = set()  # of any object
        self._own: dict[type, set[str]] = {}  # of an object of this class, by its own methods
        self._kin: dict[type, dict[type, None]] = {}  # classes that share an object with it
        self._waiting: dict[str, list[Attribute]] = {}

    def meet_class(self, cls: type) -> list[Attribute]:
        """Take note of a class of an object; returns what its relatives' methods name."""
        own: set[str] = set()
        for base in cls.__mro__:
            own |= self._own.setdefault(base, set())
            self._kin.setdefault(base, {}).update(dict.fromkeys(cls.__mro__))
        found = []
        for base in cls.__mro__:
            found += self._read_of(base, own - self._own[base])
        return found

    def is_called(self, owner: type, name: str) -> bool:
        """Whether a method may be called."""
        return name in self.names or name in self._own.get(owner, ())

    def wait(self, attribute: Attribute) -> None:
        """Keep a method until its name is read."""
        self._waiting.setdefault(attribute.name, []).append(attribute)

    def read(self, names: Iterable[str]) -> list[Attribute]:
        """Take note of names that are read of any object; returns the methods that have them."""
        new = sorted(set(names) - self.names)
        self.names.update(new)
        return [attribute for name in new for attribute in self._waiting.pop(name, ())]

    def read_own(self, owner: type, names: Iterable[str]) -> list[Attribute]:
        """Take note of names that the methods of a class read of their own object."""
        new = set(names)
        found = []
        for relative in self._kin.get(owner, {owner: None}):
            found += self._read_of(relative, new - self._own.setdefault(relative, set()))
        return found

    def _read_of(self, owner: type, names: set[str]) -> list[Attribute]:
        self._own[owner] |= names
        found = []
        for name in sorted(names & self._waiting.keys()):
            waiting = self._waiting[name]
            found += [attribute for attribute in waiting if attribute.owner is owner]
            self._waiting[name] = [one for one in waiting if one.owner is not owner]
        return found
