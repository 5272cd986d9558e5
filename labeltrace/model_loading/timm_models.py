"""Models by timm's names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import timm
import torch

from labeltrace.errors import ModelLoadingError, WeightsUnavailableError
from labeltrace.model_loading.building_errors import building, first_line
from labeltrace.model_loading.loaded_model import LoadedModel, describe
from labeltrace.model_loading.timm_weights import DOWNLOAD_ERRORS, weight_options


def from_timm(
    name: str,
    image_size: int | tuple[int, int] | None,
    pretrained: bool,
    device: str,
    given: Mapping[str, Any],
) -> LoadedModel:
    """Build a model of timm's; `given` are further arguments of `timm.create_model`.

    Raises:
        ModelLoadingError: timm has no such model, or building it failed.
        WeightsUnavailableError: trained weights are asked for and not available.
    """
    if not timm.is_model(name):
        raise ModelLoadingError(_unknown_name(name))
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # the tag after the dot
        tags = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*")) or "none"
        raise ModelLoadingError(f"{error} timm's weights of this model: {tags}") from error
    options: dict[str, Any] = {}
    # Models of a fixed size take it when they are built, others when they are called.
    if image_size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    if pretrained:
        options.update(weight_options(name))
    options.update(given)
    with building(f"timm's {name}"), torch.device(device):
        try:
            model = timm.create_model(name, **options)
        except DOWNLOAD_ERRORS as error:
            raise WeightsUnavailableError(
                f"its weights could not be fetched: {first_line(error)}"
            ) from error
    return describe(model, image_size)


def _unknown_name(name: str) -> str:
    close = _close_names(name)
    suggestion = f"; close to it: {', '.join(close)}" if close else ""
    return (
        f"timm {timm.__version__} has no model named {name!r}{suggestion}. Run "
        f"`python -c 'import timm; print(timm.list_models())'` for all names, or pass a model of "
        f"your own as package.module:factory"
    )


def _close_names(name: str, count: int = 5) -> list[str]:
    """Names that begin like this one first, then those spelled alike."""
    stem = name.partition(".")[0].lower()
    names = timm.list_models()
    longer = sorted((known for known in names if known.startswith(stem)), key=len)
    alike = difflib.get_close_matches(stem, names, n=count)
    return list(dict.fromkeys(longer[: count if stem else 0] + alike))[:count]
