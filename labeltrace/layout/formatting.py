"""Sizes and shapes as a person writes them."""

from __future__ import annotations

from collections.abc import Iterable

from labeltrace.layout.batch_size import Size


def size_text(size: Size) -> str:
    """A size as a person writes it: a dynamic batch size reads `B`.

    >>> from labeltrace.layout.batch_size import BATCH
    >>> [size_text(size) for size in (7, BATCH, 49 * BATCH, BATCH // 2)]
    ['7', 'B', '49*B', 'B // 2']
    """
    return str(size)


def shape_text(shape: Iterable[Size]) -> str:
    """A shape as a person writes it.

    >>> from labeltrace.layout.batch_size import BATCH
    >>> shape_text((BATCH, 3, 224, 224))
    '(B, 3, 224, 224)'
    """
    return "(" + ", ".join(size_text(size) for size in shape) + ")"
