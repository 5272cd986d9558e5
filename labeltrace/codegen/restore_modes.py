"""Restore the gradient mode and autocast when a graph that switches them stops midway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def modes_kept(device_type: str) -> Iterator[None]:
    """A context that restores the gradient mode and the autocast state on leaving."""
    devices = {"cpu", device_type}
    states = {
        device: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        for device in devices
        if torch.amp.is_autocast_available(device)
    }
    cached = torch.is_autocast_cache_enabled()
    nesting = _nesting()
    with torch.set_grad_enabled(torch.is_grad_enabled()):
        try:
            yield
        finally:
            for device, (enabled, dtype) in states.items():
                torch.set_autocast_enabled(device, enabled)
                torch.set_autocast_dtype(device, dtype)
            torch.set_autocast_cache_enabled(cached)
            while _nesting() > nesting:
                torch.autocast_decrement_nesting()


def _nesting() -> int:
    """How many autocast regions are open."""
    torch.autocast_increment_nesting()
    return int(torch.autocast_decrement_nesting())
