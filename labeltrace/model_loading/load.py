"""Load a model by its name, with trained weights or random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from labeltrace.errors import WeightsUnavailableError
from labeltrace.model_loading.factories import from_factory
from labeltrace.model_loading.loaded_model import LoadedModel, describe

WEIGHTS_SEED = 0  # seed of random weights


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
            `package.module:factory`: a callable without required arguments (or a module instance)
            in a module that Python can import.
        image_size: height and width of the inputs, one number for both; None for the model's
            default, which is the `input_size` of its `pretrained_cfg` (timm's convention), or 224.
        pretrained: whether to load timm's trained weights, from the hub or its cache.
        device: the device on which timm models are built; `"meta"` needs no memory. A factory
            chooses its own device.
        options: further arguments for building the model.

    Raises:
        ModelLoadingError: there is no such model, or building it failed.
        WeightsUnavailableError: trained weights are requested and unavailable.
    """
    if ":" in name:
        if pretrained:
            raise WeightsUnavailableError(
                f"{name} is a factory; load trained weights in the factory itself"
            )
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
    """Load a model, with random weights if trained weights are unavailable.

    Random weights are the same in each run.

    Args:
        name: as for `load_model`.
        pretrained: whether to load trained weights.
        image_size: as for `load_model`.
        load: the function that loads a model by its name.

    Returns:
        The model, and the reason why trained weights are unavailable: empty if they were loaded or
        not requested.

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
