"""Autocast and loss scaling."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from labeltrace.training.recipe import Precision

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """The context for forward passes."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32")


def gradient_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """The loss scaler: enabled in half precision, a no-op in the others."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
