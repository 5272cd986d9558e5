"""Sources in chunks: label images of many sources, a bounded number of columns at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
"""What one chunk's label image may take; the labels of a few layers take as much again."""


def chunks(batch: int, sizes: Sequence[int], sources: int) -> list[range]:
    """The sources in runs, such that a label image (batch, sources, *sizes) of each is small."""
    column = 4 * batch * prod(sizes)
    width = max(1, min(sources, CHUNK_BYTES // column - 1))
    return [range(start, min(start + width, sources)) for start in range(0, sources, width)]


def one_hot_image(source_of: Tensor, sources: range, batch: int) -> Tensor:
    """A label image (batch, sources + 1, *sizes) in which every position has one source.

    Args:
        source_of: (*sizes) int64, the source of each position.
        sources: those with a column of their own; all others share the last one.
        batch: how many images; they share memory.
    """
    columns = torch.arange(sources.start, sources.stop, device=source_of.device)
    own = source_of == columns.reshape(-1, *(1 for _ in source_of.shape))
    labels = torch.cat([own, ~own.any(0, keepdim=True)]).to(torch.float32)
    return labels.expand(batch, *labels.shape)


def joined(parts: Iterator[Tensor]) -> Tensor:
    """Labels (B, N, sources + 1) of each chunk as (B, N, all sources)."""
    return torch.cat([part[..., :-1] for part in parts], -1)
