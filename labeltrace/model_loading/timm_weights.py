"""Trained weights of timm's models: from the cache of the hub, or from the network."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import timm
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

from labeltrace.errors import WeightsUnavailableError

CONNECT_SECONDS = 4.0
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# Errors of a download: file and connection errors, and those of the hub's HTTP library. The library
# differs between versions of the hub; the base classes of the hub's error are always its own.
DOWNLOAD_ERRORS: tuple[type[BaseException], ...] = (OSError, *HfHubHTTPError.__bases__)


def weight_options(name: str) -> dict[str, Any]:
    """The options for `timm.create_model` to load a model's trained weights.

    Raises:
        WeightsUnavailableError: there are none, or they are not cached and there is no network.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsUnavailableError("timm has no trained weights for it; use random weights")
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
