"""Whether attention stays what it is bit for bit when its call computes labels as well.

It does if the kernel adds up in the same order with further columns, which depends on sizes,
strides, threads and libraries but not on values: so each setting is tried once, on random numbers.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from labeltrace.fused_attention.flash_with_labels import (
    ALIGNMENT,
    flash_call_with_labels,
    has_remainder_key,
    memory_span,
    plain_flash_call,
    sizes_fit,
    trailing_elements,
)

_ELEMENTS_TRIED = 2**17  # so many that another order of adding up shows in some of them
_HEADS_TRIED = 2**6  # of a key left over, whose order may be another for a single query


def output_strides_if_bitwise_equal(
    query: Tensor, key: Tensor, value: Tensor, columns: int
) -> tuple[int, ...] | None:
    """The plain output's strides; None where so many columns change it or its normalisers.

    None as well where sizes do not fit, or labels are cheaper apart.
    """
    if has_remainder_key(key.shape[2]) and _is_misaligned(query, key):
        return None  # the order depends on where memory lies, and a trial would prove nothing
    layouts = (_Strided.of(query), _Strided.of(key, columns), _Strided.of(value))
    return _tried(layouts, columns, torch.get_num_threads())


def _is_misaligned(*tensors: Tensor) -> bool:
    """Whether any row of (B, H, N, E) starts where PyTorch would not begin to allocate."""
    strides = (
        stride * tensor.element_size() for tensor in tensors for stride in tensor.stride()[:-1]
    )
    places = itertools.chain((tensor.data_ptr() for tensor in tensors), strides)
    return any(place % ALIGNMENT for place in places)


class _Strided(NamedTuple):
    """How a tensor lies in memory; ``offset`` counts elements from an aligned address.

    ``behind`` counts the elements behind it, so far as the kernel may read them.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    behind: int

    @classmethod
    def of(cls, tensor: Tensor, columns: int = 0) -> _Strided:
        offset = tensor.data_ptr() % ALIGNMENT // tensor.element_size()
        readable = columns if columns and trailing_elements(tensor) >= columns else 0
        return cls(tensor.shape, tensor.stride(), offset, readable)

    def random(self, generator: torch.Generator, of_last: float = 1.0) -> Tensor:
        """Random numbers that lie so, those of the last token so many times as large."""
        elements = self.offset + memory_span(self.shape, self.strides) + self.behind
        memory = torch.randn(elements, generator=generator, device="cpu")
        if of_last != 1:
            places = torch.arange(elements, device="cpu")
            last = places.as_strided(self.shape, self.strides, self.offset)[:, :, -1]
            memory[last.unique()] *= of_last  # tokens may share memory, which takes no `mul_`
        return memory.as_strided(self.shape, self.strides, self.offset)


@functools.lru_cache(maxsize=1024)
def _tried(layouts: tuple[_Strided, ...], columns: int, threads: int) -> tuple[int, ...] | None:
    query, key, value = (layout.shape for layout in layouts)
    if not sizes_fit(query, key, value, columns):
        return None
    generator = torch.Generator("cpu").manual_seed(0)
    with torch.no_grad():
        for tensors in _trials(layouts, generator):
            labels = torch.rand(key[0], key[2], columns, generator=generator, device="cpu")
            plain, normalisers = plain_flash_call(*tensors)
            found = flash_call_with_labels(*tensors, labels, scale=None, strides=plain.stride())
            if not (torch.equal(plain, found[0]) and torch.equal(normalisers, found[1])):
                return None
    return plain.stride()


def _trials(
    layouts: tuple[_Strided, ...], generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Random queries, keys and values that lie so, as often as it takes to see a difference.

    A single score would hardly tell in the sums over all keys: a key left over is made to prevail.
    """
    query, key, value = layouts
    (batch, heads, *rest), keys = query.shape, key.shape[2]
    for _ in range(math.ceil(_ELEMENTS_TRIED / (batch * heads * math.prod(rest)))):
        yield query.random(generator), key.random(generator), value.random(generator)
    if not has_remainder_key(keys):
        return
    for _ in range(math.ceil(_HEADS_TRIED / (batch * heads))):
        yield query.random(generator), key.random(generator, 4), value.random(generator, 1e4)
