"""Soundness against autograd on a feature map of each family, early enough to be local."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

import labeltrace
from tests.helpers.families import Family, every_family
from tests.oracles.soundness import check_soundness

IMAGES = 4
POSITIONS = 209

# Gates and normalizations over all positions read the whole image; labels ignore them
# (contract, points 5 and 8).
GLOBAL = frozenset(
    {
        "convnext_v2",
        "eca_resnet",
        "poolformer",
        "poolformer_v2",
        "resnest",
        "se_resnet",
        "sk_resnet",
    }
)


class Features(nn.Module):
    """A model up to its first small feature map; GELU for ReLU, which dies in narrow layers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        rectified = [name for name, part in model.named_modules() if isinstance(part, nn.ReLU)]
        for name in rectified:
            model.set_submodule(name, nn.GELU())

    def forward(self, images: Tensor) -> Tensor:
        maps: list[Tensor] = self.model.forward_intermediates(images, intermediates_only=True)
        return next(map for map in maps if map.shape[-2] * map.shape[-1] <= POSITIONS)


def blocks(rows: int, columns: int, most: int = 16) -> Tensor:
    """The image cut into blocks, at most so many a side, each a source: (1, K, rows, columns)."""
    by_row, by_column = (torch.arange(n) * min(n, most) // n for n in (rows, columns))
    width = int(by_column.max()) + 1
    number = by_row[:, None] * width + by_column
    count = int(number.max()) + 1
    return nn.functional.one_hot(number, count).permute(2, 0, 1)[None].float()


@every_family
def test_sources_are_the_jacobians(family: Family) -> None:
    model = Features(family.build())
    images = torch.randn(IMAGES, 3, *family.image_size, generator=torch.Generator().manual_seed(0))
    cells = blocks(*family.image_size)
    labels = labeltrace.align(copy.deepcopy(model))(images, cells.expand(IMAGES, -1, -1, -1))[1]
    check_soundness(
        model, labels, images, cells, equal=family.name not in GLOBAL, prior=True, most=53
    )
