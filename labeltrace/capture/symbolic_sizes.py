"""Torch's symbolic sizes as sizes of the layout: exact, in the size of the batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import sympy
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod, PythonMod
from torch.utils._sympy.symbol import SymT, symbol_is_type

from labeltrace.errors import LayoutError
from labeltrace.layout import BatchSize, Size, unknown_size

_OPERATIONS: Mapping[type, Callable[[Size, Size], Size]] = {
    sympy.Add: lambda left, right: left + right,
    sympy.Mul: lambda left, right: left * right,
    FloorDiv: lambda left, right: left // right,
    Mod: lambda left, right: left % right,
    PythonMod: lambda left, right: left % right,
    Max: lambda left, right: left if left >= right else right,
    Min: lambda left, right: left if left <= right else right,
}


def is_of_batch(symbol: Any) -> bool:
    """Whether a symbol is the size of the batch.

    Every input's axis 0 that is as long as the batch has a symbol. The others depend on values.
    """
    return bool(symbol_is_type(symbol, SymT.SIZE))


def size_of(expression: Any, batch: Size) -> Size:
    """A symbolic size, `batch` in place of the symbols of the batch.

    A part that has no exact form, such as a number of values that a mask selects, is an unknown
    size; equal ones are equal.
    """
    try:
        size = _converted(expression, batch)
    except LayoutError:  # not the same for all batch sizes
        return unknown_size(str(expression))
    if isinstance(size, BatchSize):
        smallest, largest = size.bounds
        return int(smallest) if smallest == largest else size
    return size


def _converted(expression: Any, batch: Size) -> Size:
    if expression.is_Integer:
        return int(expression)
    if expression.is_Symbol and is_of_batch(expression):
        return batch
    operation = _operation(expression)
    if operation is not None:
        return functools.reduce(operation, (_converted(part, batch) for part in expression.args))
    if isinstance(expression, sympy.Pow) and expression.exp.is_Integer and expression.exp > 0:
        return functools.reduce(
            _OPERATIONS[sympy.Mul], [_converted(expression.base, batch)] * int(expression.exp)
        )
    return unknown_size(str(expression))


def _operation(expression: Any) -> Callable[[Size, Size], Size] | None:
    found = (operation for kind, operation in _OPERATIONS.items() if isinstance(expression, kind))
    return next(found, None)
