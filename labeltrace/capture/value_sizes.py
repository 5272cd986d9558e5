"""Sizes and numbers that depend on the values of tensors: `t[mask]`, `x.max().item()`.

An export gives each of them a symbol of its own, which says nothing about the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


def depends_on_values(value: Any) -> bool:
    """Whether a node's example value has a size, or is a number, that only values decide."""
    return any(
        _is_decided_by_values(symbol)
        for number in _symbolic(value)
        for symbol in number.node.expr.free_symbols
    )


def _symbolic(value: Any) -> Iterator[Any]:
    """The symbolic numbers in an example value."""
    if isinstance(value, Tensor):
        yield from (size for size in value.shape if type(size) is not int)
    elif isinstance(value, (torch.SymInt, torch.SymFloat)):
        yield value
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            yield from _symbolic(item)


def _is_decided_by_values(symbol: Any) -> bool:
    from torch.utils._sympy.symbol import SymT, symbol_is_type

    return bool(symbol_is_type(symbol, (SymT.UNBACKED_INT, SymT.UNBACKED_FLOAT)))
