"""A small model with all that could break a compiled graph, and inputs for it."""

from __future__ import annotations

from typing import Any

import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor, nn


class Small(nn.Module):
    """What could break a graph: statistics, dropout, attention, a class token, nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 2, 2)
        self.norm = nn.BatchNorm2d(6)
        self.mixing = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.dropout = nn.Dropout(0.3)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.queries = nn.Linear(6, 12)
        self.head = nn.Linear(6, 5)

    def forward(self, images: Tensor, *, scale: float = 1.0) -> dict[str, Any]:
        maps = self.norm(self.stem(images))
        maps = maps + self.mixing(maps)
        tokens = torch.cat([self.token.expand(images.shape[0], -1, -1), maps.flatten(2).mT], 1)
        query, key = self.queries(tokens).unflatten(-1, (2, 2, 3)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            query, key, tokens.unflatten(-1, (2, 3)).mT.mT.movedim(2, 1)
        )
        tokens = tokens + self.dropout(mixed.movedim(1, 2).flatten(2))
        return {"logits": self.head(tokens[:, 0]) * scale, "maps": [maps]}


def small() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Small()


def inputs(batch: int, rows: int = 6, columns: int = 10, sources: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    labels = torch.rand(batch, sources, rows, columns, generator=generator).square()
    images = torch.randn(batch, 3, rows, columns, generator=generator)
    return images, labels / labels.sum(1, keepdim=True)
