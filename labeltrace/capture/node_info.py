"""What one node of a captured graph says: its schema, its memory, its module and source line."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.fx
from torch import Tensor
from torch.fx import Graph, Node

from labeltrace.capture.call_records import Location

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in .*\n\s*(?P<code>.*)')
_TORCH_FOLDER = os.path.dirname(torch.__file__) + os.sep


# Places.


def location(node: Node) -> Location:
    """The innermost module of a node, and the innermost source line outside torch."""
    stack = node.meta.get("nn_module_stack") or {}
    path, kind = next(reversed(stack.values()), ("", "")) if stack else ("", "")
    line = source_line(node.meta.get("stack_trace") or "")
    return Location(clean_path(path), str(kind).rsplit(".", 1)[-1], line)


def clean_path(path: str) -> str:
    """A module path without the marks that `torch.export` leaves in it."""
    return re.sub(r"@\d+$", "", path).removeprefix("L['self'].")


def source_line(stack_trace: str) -> str:
    """`file:line: code` of the innermost frame outside torch; empty if there is none."""
    frames = _FRAME.findall(stack_trace)
    for file, line, code in reversed(frames):
        if not file.startswith(_TORCH_FOLDER):
            return f"{file}:{line}: {code.strip()}"
    return ""


# Schemas.


@dataclass(frozen=True, slots=True)
class Signature:
    """What the schema of an operator says.

    Attributes:
        names: the names under which a rule for it may be registered, the most specific first. An
            in-place operator has the names of its functional variant too.
        defaults: the arguments in order, with their defaults.
        written: the arguments that it writes to.
    """

    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    written: tuple[str, ...]


@cache
def signature(target: torch._ops.OpOverload) -> Signature:
    """The signature of an operator."""
    arguments = target._schema.arguments
    written = tuple(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)
    name = target._schema.name.replace("::", ".")
    overload = target._schema.overload_name or "default"
    names = [f"{name}.{overload}", name]
    if written and name.endswith("_"):
        functional = name.removesuffix("_")
        names += [f"{functional}.{overload}", functional]
    return Signature(tuple(names), {a.name: a.default_value for a in arguments}, written)


def operator_names(node: Node) -> tuple[str, ...]:
    """The names under which a rule for a node may be registered; see `Signature`."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return (str(getattr(target, "__name__", target)),)
    return signature(target).names


def is_getitem(node: Node) -> bool:
    """Whether a node picks one of several outputs."""
    return node.op == "call_function" and node.target is operator.getitem


def schema_arguments(node: Node) -> Mapping[str, Any]:
    """A call's arguments by their schema names, defaults filled in."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return {str(index): value for index, value in enumerate(node.args)} | dict(node.kwargs)
    defaults = signature(target).defaults
    given = dict(zip(defaults, node.args, strict=False)) | node.kwargs
    return {name: given.get(name, default) for name, default in defaults.items()}


# Memory.


def written_arguments(node: Node) -> tuple[Any, ...]:
    """What a node has for each argument that its operator writes to."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not signature(target).written:
        return ()
    arguments = schema_arguments(node)
    return tuple(arguments[name] for name in signature(target).written)


def nodes_in(arguments: Iterable[Any]) -> tuple[Node, ...]:
    """The nodes among arguments, those in lists included."""
    each = (value if isinstance(value, (list, tuple)) else (value,) for value in arguments)
    return tuple(value for values in each for value in values if isinstance(value, Node))


def overwritten_memory(graph: Graph) -> frozenset[int | None]:
    """The memory (`storage_of`) of the tensors that some node writes to."""
    written = (nodes_in(written_arguments(node)) for node in graph.nodes)
    return frozenset(storage_of(node) for nodes in written for node in nodes)


def storage_of(node: Node) -> int | None:
    """An identifier of the memory of a node's tensor; equal for views of one another."""
    value = node.meta.get("val")
    return storage_id(value) if isinstance(value, Tensor) else None


def storage_id(tensor: Tensor) -> int:
    """An identifier of a tensor's memory; equal for views of one another."""
    return int(tensor.untyped_storage()._cdata)


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors in a node's example value."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)
