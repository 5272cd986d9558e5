"""Torch's symbolic sizes as sizes of the layout: exact, in the size of the batch."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from labeltrace.errors import LayoutError
from labeltrace.layout import BatchSize, Size, unknown_size

_OPERATIONS: Final[Mapping[str, Callable[[Any, Any], Size]]] = {
    "Add": operator.add,
    "Mul": operator.mul,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "Max": lambda left, right: left if left >= right else right,
    "Min": lambda left, right: left if left <= right else right,
}
"""What sympy's and torch's classes of expressions compute, by name: sympy takes long to import."""


def is_of_batch(symbol: Any) -> bool:
    """Whether a symbol is the size of the batch.

    Every input's axis 0 that is as long as the batch has a symbol. The others depend on values.
    """
    from torch.utils._sympy.symbol import SymT, symbol_is_type  # by now torch has imported sympy

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
    if expression.is_Symbol:
        return batch if is_of_batch(expression) else unknown_size(str(expression))
    if expression.is_Pow and expression.exp.is_Integer and expression.exp > 0:
        factors = [_converted(expression.base, batch)] * int(expression.exp)
        return functools.reduce(operator.mul, factors)
    operation = _OPERATIONS.get(expression.func.__name__)
    if operation is None:
        return unknown_size(str(expression))
    return functools.reduce(operation, [_converted(part, batch) for part in expression.args])
