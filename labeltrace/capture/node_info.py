"""Reading the captured graph: schemas, sizes, module paths and source lines of its nodes."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.fx
from torch import Tensor
from torch.fx import Graph, Node

from labeltrace.layout import BATCH

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in .*\n\s*(?P<code>.*)')
_TORCH_FOLDER = os.path.dirname(torch.__file__) + os.sep


@dataclass(frozen=True, slots=True)
class Location:
    """Where in the model a node comes from."""

    module_path: str
    module_type: str
    source_line: str

    def __str__(self) -> str:
        module = self.module_path or "(the model itself)"
        return f"{module} ({self.module_type}), {self.source_line or 'source line unknown'}"


def location(node: Node) -> Location:
    """The innermost module and the innermost source line outside torch of a node."""
    stack = node.meta.get("nn_module_stack") or {}
    path, kind = next(reversed(stack.values()), ("", "")) if stack else ("", "")
    return Location(clean_path(path), str(kind).rsplit(".", 1)[-1], source_line(node))


def clean_path(path: str) -> str:
    """A module path without the marks that torch.export leaves in it."""
    return re.sub(r"@\d+$", "", path).removeprefix("L['self'].")


def lies_in(path: str, module: str) -> bool:
    """Whether a module path is that of ``module`` or of something inside it."""
    return not module or path == module or path.startswith(f"{module}.")


def is_named(path: str, pattern: str) -> bool:
    """Whether a module path fits a pattern such as ``blocks.*``, name by name."""
    names, parts = path.split("."), pattern.split(".")
    return len(names) == len(parts) and all(map(fnmatchcase, names, parts))


def lies_in_named(path: str, pattern: str) -> bool:
    """Whether a module, or one of those that it lies in, fits a pattern."""
    names = path.split(".")
    return any(is_named(".".join(names[:end]), pattern) for end in range(1, len(names) + 1))


def source_line(node: Node) -> str:
    """``file:line: code`` of the innermost frame outside torch; empty where none is known."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    for file, line, code in reversed(frames):
        if not file.startswith(_TORCH_FOLDER):
            return f"{file}:{line}: {code.strip()}"
    return ""


def operator_names(node: Node) -> tuple[str, ...]:
    """The names under which a rule may be filed, the most specific first.

    An in-place operator goes by the name of its functional twin as well.
    """
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return (str(getattr(target, "__name__", target)),)
    name = target._schema.name.replace("::", ".")
    overload = target._schema.overload_name or "default"
    names = [f"{name}.{overload}", name]
    if mutated_argument(node) is not None and name.endswith("_"):
        functional = name.removesuffix("_")
        names += [f"{functional}.{overload}", functional]
    return tuple(names)


def is_getitem(node: Node) -> bool:
    """Whether a node picks one of several outputs."""
    return node.op == "call_function" and node.target is operator.getitem


def mutated_argument(node: Node) -> str | None:
    """The name of the argument that an operator writes to; None for functional ones."""
    return next(iter(_mutated_arguments(node)), None)


def _mutated_arguments(node: Node) -> tuple[str, ...]:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return ()
    arguments = target._schema.arguments
    return tuple(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)


def written_node(node: Node) -> Node | None:
    """The tensor that an operator writes to; None for functional ones."""
    name = mutated_argument(node)
    written = schema_arguments(node)[name] if name is not None else None
    return written if isinstance(written, Node) else None


def overwritten_memory(graph: Graph) -> frozenset[int | None]:
    """What :func:`storage_of` finds for the tensors that some node writes to."""
    written = (
        schema_arguments(node)[name] for node in graph.nodes for name in _mutated_arguments(node)
    )
    each = (value if isinstance(value, (list, tuple)) else (value,) for value in written)
    tensors = (tensor for values in each for tensor in values)
    return frozenset(storage_of(tensor) for tensor in tensors if isinstance(tensor, Node))


def schema_arguments(node: Node) -> Mapping[str, Any]:
    """A call's arguments by their schema names, defaults filled in."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return {str(index): value for index, value in enumerate(node.args)} | dict(node.kwargs)
    arguments: dict[str, Any] = {}
    for index, argument in enumerate(target._schema.arguments):
        if index < len(node.args):
            arguments[argument.name] = node.args[index]
        elif argument.name in node.kwargs:
            arguments[argument.name] = node.kwargs[argument.name]
        else:
            arguments[argument.name] = argument.default_value
    return arguments


class Sizes:
    """Sizes as integers: a dynamic batch is read as :data:`labeltrace.layout.BATCH`.

    Expressions are looked up, for the same few occur thousands of times in a graph.
    """

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}

    def of(self, size: Any) -> int:
        """One size."""
        if isinstance(size, int):
            return size
        expression = size.node.expr
        if expression not in self._known:
            symbols = dict.fromkeys(expression.free_symbols, BATCH)
            self._known[expression] = int(expression.subs(symbols))
        return self._known[expression]

    def shape(self, value: Tensor) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self.of(size) for size in value.shape)

    def shapes(self, value: Any) -> tuple[tuple[int, ...], ...]:
        """The shapes of all tensors that a node returns."""
        return tuple(self.shape(tensor) for tensor in tensors_of(value))


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors in a node's example value."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)


def storage_of(node: Node) -> int | None:
    """What stands for the memory of a node's tensor; equal for views of one another."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    return int(value.untyped_storage()._cdata)
