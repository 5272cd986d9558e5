"""PVT v1 (Table 1 of the paper) from `transformers`; timm does not have it."""

from __future__ import annotations

from typing import Any

from torch import nn

from labeltrace.errors import ModelLoadingError

__all__ = ["pvt_large", "pvt_medium", "pvt_small", "pvt_tiny"]


def pvt_tiny(**options: Any) -> nn.Module:
    """PVT-Tiny; for all four models, options are those of `transformers.PvtConfig`."""
    return _pvt((2, 2, 2, 2), options)


def pvt_small(**options: Any) -> nn.Module:
    """PVT-Small."""
    return _pvt((3, 4, 6, 3), options)


def pvt_medium(**options: Any) -> nn.Module:
    """PVT-Medium."""
    return _pvt((3, 4, 18, 3), options)


def pvt_large(**options: Any) -> nn.Module:
    """PVT-Large."""
    return _pvt((3, 8, 27, 3), options)


def _pvt(depths: tuple[int, ...], options: dict[str, Any]) -> nn.Module:
    """A classifier of 1000 classes with PvtConfig's default widths, which all four share."""
    try:
        from transformers import PvtConfig, PvtForImageClassification
    except ImportError as error:
        raise ModelLoadingError(
            "PVT comes from transformers; install it with pip install 'labeltrace[transformers]'"
        ) from error
    settings: dict[str, Any] = {"depths": list(depths), "num_labels": 1000, **options}
    return PvtForImageClassification(PvtConfig(**settings))
