"""Build a model of the zoo."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from labeltrace.model_loading import LoadedModel, load_model
from labeltrace.models_zoo.family import find


def build(
    name: str, *, image_size: int | None = None, device: str = "cpu", **options: Any
) -> nn.Module:
    """Build a model with random weights.

    Args:
        name: the name of a family, for its smallest member; the name of a member; or any other name
            that `labeltrace.model_loading.load_model` accepts.
        image_size: height and width of the images; None for the model's native size.
        device: device of parameters and buffers; `"meta"` needs no memory.
        **options: further arguments for building the model.

    Raises:
        ModelLoadingError: there is no such model, or building it failed.
    """
    return load(name, image_size=image_size, device=device, **options).model


def load(
    name: str, *, image_size: int | None = None, device: str = "cpu", **options: Any
) -> LoadedModel:
    """Same as `build`, but returns the model with the size of its images."""
    family = find(name)
    settings: dict[str, Any] = dict(family.options) if family else {}
    if family and family.sizes.option and image_size is not None:
        settings[family.sizes.option] = image_size
    member = family.smallest if family and name not in family.members else name
    with torch.device(device):
        loaded = load_model(
            member, image_size=image_size, device=device, options=settings | options
        )
    if family and family.source != "timm" and image_size is None:  # timm's models say it themselves
        size = family.sizes.native
        return replace(loaded, input_size=(loaded.input_size[0], size, size))
    return loaded
