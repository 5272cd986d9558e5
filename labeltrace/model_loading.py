"""Load a model by its name: a timm name, or `package.module:factory`."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import operator
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from labeltrace.capture.export import model_line
from labeltrace.errors import LabelTraceError

DEFAULT_INPUT_SIZE = (3, 224, 224)
CONNECT_SECONDS = 4.0
WEIGHTS_SEED = 0  # seed of random weights
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# Errors of a download: file and connection errors, and those of the hub's HTTP library. The library
# differs between versions of the hub; the base classes of the hub's error are always its own.
DOWNLOAD_ERRORS: tuple[type[BaseException], ...] = (OSError, *HfHubHTTPError.__bases__)


class ModelLoadingError(LabelTraceError):
    """A name stands for no model, or building the model failed."""


class WeightsUnavailableError(ModelLoadingError):
    """Trained weights cannot be had: there are none, or no network to fetch them."""


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
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    size_assumed: bool = False

    def example(self, batch: int = 2) -> Tensor:
        """Images of zeros, (batch, *input_size), on the model's device and in its dtype."""
        parameter = next(self.model.parameters(), None)
        if parameter is None:
            return torch.zeros(batch, *self.input_size)
        return torch.zeros(batch, *self.input_size, device=parameter.device, dtype=parameter.dtype)


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
        return _with_config(_from_factory(name, options or {}), image_size)
    return _from_timm(name, image_size, pretrained, device, options or {})


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


# timm. --------------------------------------------------------------------------------------------


def _from_timm(
    name: str,
    image_size: int | tuple[int, int] | None,
    pretrained: bool,
    device: str,
    given: Mapping[str, Any],
) -> LoadedModel:
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
        options.update(_weight_options(name))
    options.update(given)
    with _foreign_errors(f"timm's {name}"), torch.device(device):
        try:
            model = timm.create_model(name, **options)
        except DOWNLOAD_ERRORS as error:
            raise WeightsUnavailableError(
                f"its weights could not be downloaded: {_first_line(error)}"
            ) from error
    return _with_config(model, image_size)


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


# Weights. -----------------------------------------------------------------------------------------


def _weight_options(name: str) -> dict[str, Any]:
    """The options for `timm.create_model` to load a model's trained weights.

    Raises:
        WeightsUnavailableError: there are none, or they are not cached and there is no network.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsUnavailableError("timm has no trained weights for it")
    if not config.hf_hub_id:
        _check_reachable(str(config.url))
        return {"pretrained": True}
    names = (config.hf_hub_filename,) if config.hf_hub_filename else WEIGHT_FILES
    for file in names:
        cached = try_to_load_from_cache(config.hf_hub_id, file)
        if isinstance(cached, str):
            return {"pretrained": True, "pretrained_cfg_overlay": {"file": cached}}
    _check_reachable(constants.ENDPOINT)
    return {"pretrained": True}


def _check_reachable(url: str) -> None:
    """Connect once to the server or its proxy: the hub itself would retry for a minute."""
    target = urlsplit(url)
    host = target.hostname or ""
    proxies = {} if proxy_bypass(host) else getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    if proxy:
        target = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    port = target.port or (80 if target.scheme == "http" else 443)
    try:
        socket.create_connection((target.hostname or "", port), CONNECT_SECONDS).close()
    except OSError as error:
        raise WeightsUnavailableError(
            f"its weights are not on this machine, and {host} cannot be reached ({error}); connect "
            f"to a network, or use random weights"
        ) from error


# Factories. ---------------------------------------------------------------------------------------


def _from_factory(name: str, options: Mapping[str, Any]) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    factory = _find_attribute(_import_module(module_name, name), attribute, name)
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise ModelLoadingError(
            f"{name} is of type {type(factory).__name__}; it must be a callable without arguments "
            f"that returns a torch.nn.Module"
        )
    with _foreign_errors(name):
        model = factory(**options)
    if not isinstance(model, nn.Module):
        raise ModelLoadingError(
            f"{name}() returned a {type(model).__name__}, not a torch.nn.Module; return the model "
            f"itself"
        )
    return model


def _import_module(module_name: str, name: str) -> Any:
    try:
        with _foreign_errors(f"the module {module_name!r}", "importing"):
            return importlib.import_module(module_name)
    except ModelLoadingError as error:
        cause = error.__cause__
        missing = cause.name if isinstance(cause, ModuleNotFoundError) else None
        if missing is None or not f"{module_name}.".startswith(f"{missing}."):
            raise  # the module was found, but its own code failed
        raise ModelLoadingError(
            f"{name}: there is no module {missing!r} to import; install it, or run in the folder "
            f"that holds it (for a timm model, write only its name)"
        ) from cause


def _find_attribute(module: Any, attribute: str, name: str) -> Callable[[], object] | object:
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError as error:
        callables = [key for key, value in vars(module).items() if callable(value)]
        close = difflib.get_close_matches(attribute, callables)
        suggestion = f"; similar names: {', '.join(close)}" if close else ""
        raise ModelLoadingError(
            f"{name}: the module {module.__name__} defines no {attribute!r}{suggestion}"
        ) from error


# Both. --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _foreign_errors(what: str, verb: str = "building") -> Iterator[None]:
    """Turn any error of foreign code into a `ModelLoadingError` that says where it occurred."""
    try:
        yield
    except LabelTraceError:
        raise
    except Exception as error:
        line = model_line(error)
        where = f"\n  stopped at {line}" if line and not line.startswith(("<", __file__)) else ""
        raise ModelLoadingError(
            f"{verb} {what} failed in its own code: {_first_line(error)}{where}"
        ) from error


def _with_config(model: nn.Module, image_size: int | tuple[int, int] | None) -> LoadedModel:
    """A model with the input size, mean and standard deviation of its own configuration."""
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    channels, height, width = config.get("input_size") or DEFAULT_INPUT_SIZE
    if image_size is not None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return LoadedModel(
        model,
        (channels, height, width),
        tuple(config.get("mean") or IMAGENET_DEFAULT_MEAN),
        tuple(config.get("std") or IMAGENET_DEFAULT_STD),
        size_assumed=image_size is None and not config.get("input_size"),
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
