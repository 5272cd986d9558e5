"""Models that the command line finds as `tests.helpers.command_line_models:name`."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Tiny(nn.Module):
    """Patches, a layer norm of their features, their mean, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 7, 4, stride=4)
        self.norm = nn.BatchNorm2d(7)
        self.classifier = nn.Linear(7, 11)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.norm(self.patches(images)).mean((2, 3)))


class Pooled(Tiny):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(nn.functional.max_pool2d(images, 2))


class BatchOfTwo(Tiny):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.reshape(2, 3, 32, 32))


class Branching(Tiny):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.sum() > 0 else -images)


class Unruly(Tiny):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(torch.cumprod(images, 2))


instance = Tiny()


number = 5


def chatty() -> nn.Module:
    print("building ...")
    return Tiny()


def failing() -> nn.Module:
    raise ValueError("seven is not even")


def returning_nothing() -> None:
    return None


def needing_arguments(depth: int) -> nn.Module:
    return Tiny()
