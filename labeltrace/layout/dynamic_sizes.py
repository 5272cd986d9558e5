"""Dynamic sizes: those that depend on the size of the batch."""

from __future__ import annotations

from collections.abc import Iterable

from labeltrace.layout.batch_size import BatchSize, Size


def is_dynamic(size: Size) -> bool:
    """Whether a size is known at run time alone: that of a dynamic batch, its multiples and parts.

    >>> from labeltrace.layout.batch_size import BATCH
    >>> [is_dynamic(size) for size in (224, BATCH, 49 * BATCH, BATCH // 2, BATCH - 1)]
    [False, True, True, True, True]
    """
    return isinstance(size, BatchSize)


def infer_dynamic(sizes: Iterable[Size]) -> list[int]:
    """The sizes for `torch.Tensor.view`: -1 where one is dynamic, so that torch infers it.

    >>> from labeltrace.layout.batch_size import BATCH
    >>> infer_dynamic((BATCH, 7, 7))
    [-1, 7, 7]
    """
    return [size if isinstance(size, int) else -1 for size in sizes]
