"""Load a model by its name, with trained weights or random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from labeltrace.errors import WeightsUnavailableError
from labeltrace.model_loading.factories import from_factory
from labeltrace.model_loading.loaded_model import LoadedModel, describe

WEIGHTS_SEED = 0  # of random weights


def load_model(
    name: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    pretrained: bool = False,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Build a model by its name.

    Args:
        name: a timm model name, with or without the tag of its weights, or
            `package.module:factory`: a callable without arguments (or a module instance) in
            something that Python can import.
        image_size: height and width of the inputs, one number for both; None for the model's own,
            which is the `input_size` of its `pretrained_cfg` (timm's convention), else 224.
        pretrained: whether to load timm's trained weights, from the hub or its cache.
        device: where timm models are built; `"meta"` costs no memory.  A factory builds its
            model where it likes.
        options: further arguments with which the model is made.

    Raises:
        ModelLoadingError: there is no such model, or building it failed.
        WeightsUnavailableError: trained weights are asked for and cannot be had.
    """
    if ":" in name:
        if pretrained:
            raise WeightsUnavailableError(f"{name} is a factory, which has to load weights itself")
        return describe(from_factory(name, options or {}), image_size)
    from labeltrace.model_loading.timm_models import from_timm  # timm takes long to import

    return from_timm(name, image_size, pretrained, device, options or {})


def load_or_random(
    name: str,
    *,
    pretrained: bool = False,
    image_size: int | tuple[int, int] | None = None,
    load: Callable[..., LoadedModel] = load_model,
) -> tuple[LoadedModel, str]:
    """The model, and why it lacks the trained weights that were asked for, or nothing.

    Random weights are the same in each run.

    Args:
        name: as for `load_model`.
        pretrained: whether to ask for trained weights.
        image_size: likewise.
        load: how a name becomes a model.

    Raises:
        ModelLoadingError: there is no such model, or building it failed.
    """
    size = {} if image_size is None else {"image_size": image_size}
    missing = ""
    if pretrained:
        try:
            return load(name, pretrained=True, **size), ""
        except WeightsUnavailableError as error:
            missing = str(error)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(WEIGHTS_SEED)
        return load(name, pretrained=False, **size), missing
