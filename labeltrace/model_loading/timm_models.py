"""Models by their timm names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import timm
import torch

from labeltrace.errors import ModelLoadingError, WeightsUnavailableError
from labeltrace.model_loading.building_errors import first_line, wrap_building_errors
from labeltrace.model_loading.loaded_model import LoadedModel, describe
from labeltrace.model_loading.timm_weights import DOWNLOAD_ERRORS, weight_options


def from_timm(
    name: str,
    image_size: int | tuple[int, int] | None,
    pretrained: bool,
    device: str,
    given: Mapping[str, Any],
) -> LoadedModel:
    """Build a timm model; `given` are further arguments for `timm.create_model`.

    Raises:
        ModelLoadingError: timm has no such model, or building it failed.
        WeightsUnavailableError: trained weights are requested and unavailable.
    """
    if not timm.is_model(name):
        raise ModelLoadingError(_unknown_name(name))
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # the tag after the dot
        tags = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*")) or "none"
        raise ModelLoadingError(f"{error} timm's weights of this model: {tags}") from error
    options: dict[str, Any] = {}
    # Models of a fixed size get it when they are built, others accept any size when called.
    if image_size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    if pretrained:
        options.update(weight_options(name))
    options.update(given)
    with wrap_building_errors(f"timm's {name}"), torch.device(device):
        try:
            model = timm.create_model(name, **options)
        except DOWNLOAD_ERRORS as error:
            raise WeightsUnavailableError(
                f"its weights could not be downloaded: {first_line(error)}"
            ) from error
    return describe(model, image_size)


def _unknown_name(name: str) -> str:
    close = _close_names(name)
    suggestion = f"; similar names: {', '.join(close)}" if close else ""
    return (
        f"timm {timm.__version__} has no model named {name!r}{suggestion}. Run "
        f"`python -c 'import timm; print(timm.list_models())'` for all names, or pass your own "
        f"model as package.module:factory"
    )


def _close_names(name: str, count: int = 5) -> list[str]:
    """Names that start with this one, then names with a similar spelling."""
    stem = name.partition(".")[0].lower()
    names = timm.list_models()
    longer = sorted((known for known in names if known.startswith(stem)), key=len)
    similar = difflib.get_close_matches(stem, names, n=count)
    return list(dict.fromkeys(longer[: count if stem else 0] + similar))[:count]
