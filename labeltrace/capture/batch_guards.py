"""The batch sizes for which a capture holds, from what torch compared while it captured.

Torch decides each comparison of sizes by those of the example, and goes on as if it were decided.
So a captured graph is that of the model for the batch sizes that decide all of them alike.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf, lcm
from typing import Any, Final

from labeltrace.capture.symbolic_sizes import is_of_batch, size_of
from labeltrace.errors import LayoutError
from labeltrace.layout import BatchSize, Size, batch_size

_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": lambda left, right: bool(left - right),
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_LARGEST_SCAN: Final = 64
"""How far above the example a comparison is looked at that is not decided for all sizes."""


@dataclass(frozen=True, slots=True)
class BatchRange:
    """Batch sizes from `smallest` to `largest` that leave `remainder` when divided by `step`."""

    smallest: int
    largest: float = inf
    step: int = 1
    remainder: int = 0

    @property
    def size(self) -> Size:
        """The size of such a batch: a number if there is only one."""
        first = self.smallest + (self.remainder - self.smallest) % self.step
        if first + self.step > self.largest:
            return first
        return batch_size(self.smallest, self.largest, step=self.step, remainder=self.remainder)


def narrowed_range(known: BatchRange, guards: Iterable[Any], example: int) -> BatchRange:
    """The sizes of a range, around that of the example, for which all comparisons hold.

    Args:
        known: a range that has the example's size.
        guards: sympy's comparisons of symbolic sizes; all hold for the example.
        example: the example's size.
    """
    for guard in guards:
        symbols = guard.free_symbols
        if symbols and all(map(is_of_batch, symbols)):
            known = _narrowed(known, guard, example)
    return known


def _narrowed(known: BatchRange, guard: Any, example: int) -> BatchRange:
    if _always(guard, known):
        return known
    step = lcm(known.step, _modulus(guard))
    for candidate in (known, replace(known, step=step, remainder=example % step)):
        above = replace(candidate, smallest=example)
        if _always(guard, above):
            return replace(candidate, smallest=_smallest(guard, candidate, example))
    largest = example
    for size in range(example, example + _LARGEST_SCAN, known.step):
        if not _holds(guard, size):
            break
        largest = size
    smallest = _smallest(guard, known, example)
    return replace(known, smallest=smallest, largest=min(known.largest, largest))


def _smallest(guard: Any, known: BatchRange, example: int) -> int:
    """The smallest size from which on, up to the example's, a comparison holds."""
    smallest = example
    for size in range(example, known.smallest - 1, -known.step):
        if not _holds(guard, size):
            break
        smallest = size
    return smallest


def _holds(guard: Any, size: int) -> bool:
    """Whether a comparison holds for one size of the batch."""
    try:
        return bool(guard.subs(dict.fromkeys(guard.free_symbols, size)))
    except ZeroDivisionError:
        return False


def _always(guard: Any, known: BatchRange) -> bool:
    """Whether a comparison is sure to hold for a whole range."""
    if not guard.is_Relational:
        return False
    left, right = (size_of(side, known.size) for side in (guard.lhs, guard.rhs))
    try:
        return bool(_COMPARISONS[guard.rel_op](left, right))
    except LayoutError:
        return False


def _modulus(guard: Any) -> int:
    """The number whose remainders a comparison may tell apart."""
    if not guard.is_Relational:
        return 1
    sides = [size_of(side, batch_size()) for side in (guard.lhs, guard.rhs)]
    return lcm(*(len(side.values) for side in sides if isinstance(side, BatchSize)))
