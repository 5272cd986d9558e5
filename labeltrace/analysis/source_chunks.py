"""Label images with many sources, processed in chunks of a bounded number of sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
"""Memory limit for the label image of one chunk; the labels of a few layers need as much again."""


def source_chunks(batch: int, sizes: Sequence[int], sources: int) -> list[range]:
    """Ranges of sources whose label images (batch, sources, *sizes) fit `CHUNK_BYTES`."""
    column = 4 * batch * prod(sizes)
    width = max(1, min(sources, CHUNK_BYTES // column - 1))
    return [range(start, min(start + width, sources)) for start in range(0, sources, width)]


def one_hot_image(source_of: Tensor, sources: range, batch: int) -> Tensor:
    """A label image (batch, sources + 1, *sizes) in which every position has one source.

    Args:
        source_of: (*sizes) int64, the source of each position.
        sources: the sources with a column each; all others share the last column.
        batch: number of images; they share memory.
    """
    columns = torch.arange(sources.start, sources.stop, device=source_of.device)
    own = source_of == columns.reshape(-1, *(1 for _ in source_of.shape))
    labels = torch.cat([own, ~own.any(0, keepdim=True)]).to(torch.float32)
    return labels.expand(batch, *labels.shape)


def concatenate_sources(chunks: Iterator[Tensor]) -> Tensor:
    """Concatenate the labels (B, N, sources + 1) of all chunks to (B, N, all sources)."""
    return torch.cat([chunk[..., :-1] for chunk in chunks], -1)
