"""A loaded model with the format of its input images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

DEFAULT_INPUT_SIZE = (3, 224, 224)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False, slots=True)
class LoadedModel:
    """A model and the format of its input images.

    Attributes:
        model: the module, in the mode in which it was built.
        input_size: (channels, height, width) of an input image.
        mean: mean of pixels in [0, 1], one number for each channel; subtracted from the pixels.
        std: standard deviation of pixels, one number for each channel; pixels are divided by it.
        size_assumed: whether the input size is a default, given neither by the model nor by the
            caller.
    """

    model: nn.Module
    input_size: tuple[int, int, int]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size_assumed: bool = False

    def example(self, batch: int = 2) -> Tensor:
        """Images of zeros, (batch, *input_size), on the model's device and in its dtype."""
        parameter = next(self.model.parameters(), None)
        if parameter is None:
            return torch.zeros(batch, *self.input_size)
        return torch.zeros(batch, *self.input_size, device=parameter.device, dtype=parameter.dtype)


def describe(model: nn.Module, image_size: int | tuple[int, int] | None) -> LoadedModel:
    """A model with the input size, mean and standard deviation of its own configuration."""
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    channels, height, width = config.get("input_size") or DEFAULT_INPUT_SIZE
    if image_size is not None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return LoadedModel(
        model,
        (channels, height, width),
        tuple(config.get("mean") or IMAGENET_MEAN),
        tuple(config.get("std") or IMAGENET_STD),
        size_assumed=image_size is None and not config.get("input_size"),
    )
