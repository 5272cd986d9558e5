"""Which globals and attributes a Python function reads or writes, from its code object."""

from __future__ import annotations

import dis
from dataclasses import dataclass
from functools import cached_property, partialmethod
from types import CellType, CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

GLOBAL_OPS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"})
ATTRIBUTE_OPS = frozenset({"LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR"})
SUPER_OPS = frozenset({"LOAD_SUPER_ATTR", "LOAD_SUPER_METHOD"})
IGNORED_OPS = frozenset({"PUSH_NULL", "CACHE", "EXTENDED_ARG", "NOP", "PRECALL"})


@dataclass(frozen=True, slots=True)
class CodeReads:
    """What the code of a function, with the functions inside it, names.

    Attributes:
        chains: each global with the attributes that follow it: `config.model.depth` is
            `("config", "model", "depth")`.
        own: the names of attributes of `self` (the first argument) that are read or written, also
            by `super()`.
        others: the names of attributes of anything else.
        strings: every string that could be a name, as in `getattr(self, "depth")`.
        imports: modules that are imported inside the function, each with the names taken of it.
    """

    chains: tuple[tuple[str, ...], ...]
    own: frozenset[str]
    others: frozenset[str]
    strings: frozenset[str]
    imports: tuple[tuple[str, tuple[str, ...]], ...]


_KNOWN: WeakKeyDictionary[CodeType, CodeReads] = WeakKeyDictionary()


def reads_of(code: CodeType) -> CodeReads:
    """What a code object names; found once for each.

    Examples:
        >>> def area(circle):
        ...     return math.pi * circle.radius**2
        >>> reads_of(area.__code__).chains
        (('math', 'pi'),)
    """
    found = _KNOWN.get(code)
    if found is None:
        found = _KNOWN[code] = _read(code)
    return found


def _read(code: CodeType) -> CodeReads:
    chains: dict[tuple[str, ...], None] = {}
    own: set[str] = set()
    others: set[str] = set()
    strings: set[str] = set()
    imports: dict[str, list[str]] = {}
    chain: list[str] = []  # the global that is being read, with its attributes so far
    imported: list[str] | None = None  # the names taken of the module that was imported last
    of_self = False  # whether the object at hand is the first argument, or its `super()`
    selves = {"self", "cls", *code.co_varnames[:1]}
    for step in dis.get_instructions(code):
        operation, name = step.opname, step.argval
        if operation in IGNORED_OPS:
            continue
        if operation in ATTRIBUTE_OPS or operation in SUPER_OPS:
            of_self = of_self or operation in SUPER_OPS
            (own if of_self else others).add(name)
            of_self = False
            if chain:
                chain.append(name)
                continue
        elif operation.startswith(("LOAD_FAST", "LOAD_DEREF")):
            of_self = (name[-1] if isinstance(name, tuple) else name) in selves
        elif not operation.startswith("CALL"):  # `super()` is a call
            of_self = operation in GLOBAL_OPS and name == "super"
        if chain:
            chains[tuple(chain)] = None
            chain = []
        if operation in GLOBAL_OPS:
            chain = [name]
        elif operation == "IMPORT_NAME":
            imported = imports.setdefault(name, [])
        elif operation == "IMPORT_FROM" and imported is not None:
            imported.append(name)
    if chain:
        chains[tuple(chain)] = None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = reads_of(constant)
            chains.update(dict.fromkeys(inner.chains))
            own |= inner.own
            others |= inner.others
            strings |= inner.strings
            for module, names in inner.imports:
                imports.setdefault(module, []).extend(names)
        else:
            strings |= _identifiers(constant)
    return CodeReads(
        tuple(chains),
        frozenset(own),
        frozenset(others),
        frozenset(strings),
        tuple((module, tuple(dict.fromkeys(names))) for module, names in imports.items()),
    )


def _identifiers(constant: object) -> set[str]:
    """The strings of a constant that could be names."""
    if isinstance(constant, str):
        return {constant} if constant.isidentifier() else set()
    if isinstance(constant, tuple | frozenset):
        return set().union(*map(_identifiers, constant))
    return set()


def functions_of(value: Any) -> list[FunctionType]:
    """The Python functions in a method, property or decorated function."""
    found: list[FunctionType] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, FunctionType):
            if one not in found:
                found.append(one)
                waiting += [_cell_value(cell) for cell in one.__closure__ or ()]
        elif isinstance(one, property):
            waiting += [one.fget, one.fset]
        elif isinstance(one, staticmethod | classmethod):
            waiting.append(one.__func__)
        elif isinstance(one, cached_property | partialmethod):
            waiting.append(one.func)
    return found


def _cell_value(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None
