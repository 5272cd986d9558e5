"""Tensor code as a module: a function of the input, with layers and tensors that it reads.

    Code(lambda self, x: self.layer(x.mT).mT, layer=nn.Linear(5, 7))

The function is written as a `forward` method: `self` is the module, which holds the parts. It may
close over numbers and functions, but not over tensors or layers, which belong to the parts. The
representation of a module prints the function's code and the values that it closes over, so that it
can be pasted into a test.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TensorCode = Callable[[Any, Tensor], Tensor]
"""A function of the module that holds the parts, and of its input."""


class Code(nn.Module):
    """Tensor code as a module.

    code: what `forward` does.
    parts: modules and parameters that the code reads; other tensors become buffers.
    """

    def __init__(self, code: TensorCode, **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.code = code
        self.text: str | None = None
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            elif isinstance(part, nn.Parameter):
                self.register_parameter(name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, x)

    def extra_repr(self) -> str:
        tensors = [*self.named_parameters(recurse=False), *self.named_buffers(recurse=False)]
        shapes = [f"({name}): {type(t).__name__}{tuple(t.shape)}" for name, t in tensors]
        return "\n".join([self.text or source_of(self.code), *shapes])


def from_expression(text: str, **parts: nn.Module | Tensor) -> Code:
    """The code of an expression over `self`, `x`, `torch` and `F`.

    For tables of operators where the text of a call is the name of the test, too.
    """
    module = Code(eval(f"lambda self, x: {text}", {"torch": torch, "F": F}), **parts)
    module.text = text
    return module


def source_of(function: Callable[..., Any]) -> str:
    """The code of a function, after the values that it closes over and the functions it calls.

        dim = 2
        lambda self, x: x.flip(dim)

    With torch, its `functional` as `F` and types for annotations it runs as it is printed.
    """
    return "\n".join([*_definitions(function), _code_of(function)])


def _definitions(function: Callable[..., Any]) -> dict[str, None]:
    """What it needs, each once, in an order in which it can run."""
    if not _is_ours(function):
        return {}
    variables = inspect.getclosurevars(function)
    called = {name: value for name, value in variables.globals.items() if _is_ours(value)}
    lines: dict[str, None] = {}
    for name, value in sorted({**called, **variables.nonlocals}.items()):
        lines |= _definitions(value)
        lines[_definition(name, value)] = None
    return lines


def _definition(name: str, value: Any) -> str:
    if not callable(value):
        return f"{name} = {value!r}"
    if not _is_ours(value) or _is_lambda(value):
        return f"{name} = {_code_of(value)}"
    return _code_of(value) + ("" if name == value.__name__ else f"\n{name} = {value.__name__}")


def _is_ours(value: object) -> bool:
    """Whether it is a function of these tests, and not of a library."""
    return isinstance(value, FunctionType) and not value.__module__.startswith("torch.")


def _is_lambda(function: Callable[..., Any]) -> bool:
    return function.__name__ == "<lambda>"


def _code_of(value: Callable[..., Any]) -> str:
    """The code of a function of these tests, the full name of another one."""
    if not _is_ours(value):
        name = torch.overrides.resolve_name(value)
        return name or f"{value.__module__}.{value.__qualname__}"
    if _is_lambda(value):
        return ast.unparse(_lambda_of(value.__code__))
    return textwrap.dedent(inspect.getsource(value)).rstrip()


def _lambda_of(code: CodeType) -> ast.Lambda:
    """Where a lambda is written: the smallest one that spans the places of all its instructions."""
    places = {
        place
        for first, last, start, stop in code.co_positions()
        if first and last and stop  # the first instruction has no place of its own
        for place in ((first, start or 0), (last, stop))
    }
    spanning = [
        node
        for node in _lambdas(code.co_filename)
        if _start(node) <= min(places) and max(places) <= _stop(node)
    ]
    return max(spanning, key=_start)


def _start(node: ast.Lambda) -> tuple[int, int]:
    return node.body.lineno, node.body.col_offset


def _stop(node: ast.Lambda) -> tuple[int, int]:
    return node.body.end_lineno or 0, node.body.end_col_offset or 0


@functools.cache
def _lambdas(file: str) -> list[ast.Lambda]:
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
