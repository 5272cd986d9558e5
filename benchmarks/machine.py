"""The machine that a benchmark ran on."""

from __future__ import annotations

import platform
from typing import Any

import timm
import torch


def machine(device: str = "cpu") -> dict[str, Any]:
    """Versions, processor and threads, and the GPU if one was used."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
    }
