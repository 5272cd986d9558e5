"""Making a model of the zoo."""

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
    """Make a model with random weights.

    Args:
        name: a family, for its smallest member; a member of one; or any other name that
            `labeltrace.model_loading.load_model` takes.
        image_size: height and width of the images; None for those that the model is made for.
        device: where parameters and buffers are; `"meta"` costs no memory.
        **options: further arguments with which the model is made.

    Raises:
        ModelLoadingError: there is no such model, or building it failed.
    """
    return load(name, image_size=image_size, device=device, **options).model


def load(
    name: str, *, image_size: int | None = None, device: str = "cpu", **options: Any
) -> LoadedModel:
    """Like `build`, together with the size of the images that the model takes."""
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
