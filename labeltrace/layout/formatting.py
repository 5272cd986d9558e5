"""Sizes and shapes as a person writes them."""

from __future__ import annotations

from collections.abc import Iterable

from labeltrace.layout.dynamic_sizes import BATCH, is_dynamic


def size_text(size: int) -> str:
    """A size as a person writes it: a dynamic batch size reads `B`.

    >>> [size_text(size) for size in (7, BATCH, 49 * BATCH, BATCH // 2)]
    ['7', 'B', '49*B', 'part of B']
    """
    if not is_dynamic(size):
        return str(size)
    if size % BATCH:
        return "part of B"
    return "B" if size == BATCH else f"{size // BATCH}*B"


def shape_text(shape: Iterable[int]) -> str:
    """A shape as a person writes it.

    >>> shape_text((BATCH, 3, 224, 224))
    '(B, 3, 224, 224)'
    """
    return "(" + ", ".join(size_text(size) for size in shape) + ")"
