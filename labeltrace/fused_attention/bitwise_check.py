"""Whether attention's output stays bitwise equal when its call computes labels as well.

It does if the kernel adds in the same order when there are more columns. That depends on sizes,
strides, threads and libraries but not on values, so each setting is tried once, on random numbers.
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

_ELEMENTS_TRIED = 2**17  # so many that another order of additions changes some of them
_HEADS_TRIED = 2**6  # with a remainder key, where a single query may have another order


def output_strides_if_bitwise_equal(
    query: Tensor, key: Tensor, value: Tensor, columns: int
) -> tuple[int, ...] | None:
    """The plain output's strides; None if so many columns of labels change it or its logsumexp.

    None as well if the kernel does not take such sizes, or separate labels are cheaper.
    """
    if has_remainder_key(key.shape[2]) and _is_misaligned(query, key):
        return None  # the order depends on memory addresses, so a trial would prove nothing
    layouts = (_MemoryLayout.of(query), _MemoryLayout.of(key, columns), _MemoryLayout.of(value))
    return _strides_if_equal_in_trials(layouts, columns, torch.get_num_threads())


def _is_misaligned(*tensors: Tensor) -> bool:
    """Whether any row of (B, H, N, E) starts at an address that is not 64-byte aligned."""
    strides = (
        stride * tensor.element_size() for tensor in tensors for stride in tensor.stride()[:-1]
    )
    addresses = itertools.chain((tensor.data_ptr() for tensor in tensors), strides)
    return any(address % ALIGNMENT for address in addresses)


class _MemoryLayout(NamedTuple):
    """Where a tensor's elements are in memory.

    Attributes:
        shape: its shape.
        strides: its strides, in elements.
        offset: elements from an aligned address to its first element.
        trailing: elements after its last one that the kernel may read.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    trailing: int

    @classmethod
    def of(cls, tensor: Tensor, columns: int = 0) -> _MemoryLayout:
        offset = tensor.data_ptr() % ALIGNMENT // tensor.element_size()
        readable = columns if columns and trailing_elements(tensor) >= columns else 0
        return cls(tensor.shape, tensor.stride(), offset, readable)

    def random(self, generator: torch.Generator, of_last: float = 1.0) -> Tensor:
        """Random numbers with this layout; those of the last token are scaled by `of_last`."""
        elements = self.offset + memory_span(self.shape, self.strides) + self.trailing
        memory = torch.randn(elements, generator=generator, device="cpu")
        if of_last != 1:
            indices = torch.arange(elements, device="cpu")
            last = indices.as_strided(self.shape, self.strides, self.offset)[:, :, -1]
            memory[last.unique()] *= of_last  # tokens may share memory, where `mul_` is an error
        return memory.as_strided(self.shape, self.strides, self.offset)


@functools.lru_cache(maxsize=1024)
def _strides_if_equal_in_trials(
    layouts: tuple[_MemoryLayout, ...], columns: int, threads: int
) -> tuple[int, ...] | None:
    """As `output_strides_if_bitwise_equal`; `threads` is a part of the cache's key."""
    query, key, value = (layout.shape for layout in layouts)
    if not sizes_fit(query, key, value, columns):
        return None
    generator = torch.Generator("cpu").manual_seed(0)
    with torch.no_grad():
        for tensors in _random_inputs(layouts, generator):
            labels = torch.rand(key[0], key[2], columns, generator=generator, device="cpu")
            plain, logsumexp = plain_flash_call(*tensors)
            found = flash_call_with_labels(*tensors, labels, scale=None, strides=plain.stride())
            if not (torch.equal(plain, found[0]) and torch.equal(logsumexp, found[1])):
                return None
    return plain.stride()


def _random_inputs(
    layouts: tuple[_MemoryLayout, ...], generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Random queries, keys and values with these layouts, enough of them to see a difference.

    In a sum over all keys one key changes little, so a remainder key gets most of the weight.
    """
    query, key, value = layouts
    (batch, heads, *rest), keys = query.shape, key.shape[2]
    for _ in range(math.ceil(_ELEMENTS_TRIED / (batch * heads * math.prod(rest)))):
        yield query.random(generator), key.random(generator), value.random(generator)
    if not has_remainder_key(keys):
        return
    for _ in range(math.ceil(_HEADS_TRIED / (batch * heads))):
        yield query.random(generator), key.random(generator, 4), value.random(generator, 1e4)
