"""The line of a model that changes one of its attributes."""

from __future__ import annotations

import dis
import inspect
import linecache
import re
from collections.abc import Iterator
from types import CodeType

from torch import nn


def changing_line(model: nn.Module, path: str) -> str:
    """`file:line: code` of the first method that assigns an attribute; empty if none does.

    Args:
        model: the model.
        path: the attribute from the model, as in `blocks.3.sizes[1]`.
    """
    *owner, name = re.split(r"[\[{]", path)[0].split(".")
    module: object = model
    for part in owner:
        module = getattr(module, part, None)
    if not isinstance(module, nn.Module):
        return ""
    for code in _methods(type(module)):
        for step in dis.get_instructions(code):
            number = step.positions.lineno if step.positions else None
            if step.argval == name and step.opname in ("STORE_ATTR", "LOAD_ATTR") and number:
                text = linecache.getline(code.co_filename, number).strip()
                if step.opname == "STORE_ATTR" or "[" in path:
                    return f"{code.co_filename}:{number}: {text}"
    return ""


def _methods(kind: type) -> Iterator[CodeType]:
    """The code of the methods that a class and its bases outside torch define, but `__init__`."""
    for base in kind.__mro__:
        if base.__module__.split(".")[0] == "torch" or base is object:
            continue
        for name, method in vars(base).items():
            function = inspect.unwrap(method) if callable(method) else method
            code = getattr(function, "__code__", None)
            if isinstance(code, CodeType) and name != "__init__":
                yield code
