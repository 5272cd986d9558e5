"""Dynamic sizes: how a batch whose size is not known yet is written as an integer.

A dynamic batch size is represented by the sentinel `BATCH`: a prime larger than any real size, so
it can still be recognized as a factor in a product of sizes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

BATCH: Final = 2_147_483_647
"""The prime that represents a dynamic batch size."""

_SMALLEST_DYNAMIC: Final = BATCH // 1024


def is_dynamic(size: int) -> bool:
    """Whether a size depends on that of a dynamic batch.

    True for the batch, its multiples, and parts of it such as a half or all but one sample.

    >>> [is_dynamic(size) for size in (224, BATCH, 49 * BATCH, BATCH // 2, BATCH - 1)]
    [False, True, True, True, True]
    """
    return size >= _SMALLEST_DYNAMIC


def infer_dynamic(sizes: Iterable[int]) -> list[int]:
    """The sizes for `torch.Tensor.view`: -1 where one is dynamic, so that torch infers it.

    >>> infer_dynamic((BATCH, 7, 7))
    [-1, 7, 7]
    """
    return [-1 if is_dynamic(size) else size for size in sizes]
