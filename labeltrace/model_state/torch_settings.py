"""Settings of torch that a captured graph treats as constant."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext


def torch_settings() -> Hashable:
    """The default dtype and device of new tensors, and the switches that models ask for."""
    return (
        torch.get_default_dtype(),
        _default_device(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _default_device() -> torch.device | None:
    """The device of `torch.set_default_device` or of a `with torch.device(...)`; None if unset."""
    for mode in reversed(_get_current_function_mode_stack()):
        if isinstance(mode, DeviceContext):
            return mode.device
    return None
