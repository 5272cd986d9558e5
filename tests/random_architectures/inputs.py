"""Images and label images for an architecture."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.random_architectures.state import IMAGE_CHANNELS, Architecture

BATCH = 3


def images_of(architecture: Architecture, batch: int = BATCH) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, IMAGE_CHANNELS, *architecture.image_size, generator=generator)


def identity(architecture: Architecture, batch: int = BATCH) -> Tensor:
    """One source for each pixel: (B, rows * columns, rows, columns)."""
    rows, columns = architecture.image_size
    cells = torch.eye(rows * columns).reshape(1, -1, rows, columns)
    return cells.expand(batch, -1, -1, -1)


def random_labels(architecture: Architecture, sources: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(BATCH, sources, *architecture.image_size, generator=generator)
    return noise / noise.sum(1, keepdim=True)
