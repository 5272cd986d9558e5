"""Label arithmetic: no gradient, no autocast, float32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def label_arithmetic(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Run a label function without gradient and outside autocast."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device_type = _first_tensor(args).device.type
        with torch.no_grad():
            if not torch.is_autocast_enabled(device_type):  # to switch it off takes longer
                return function(*args, **kwargs)
            with torch.autocast(device_type, enabled=False):
                return function(*args, **kwargs)

    return wrapped


def _first_tensor(values: Sequence[object]) -> Tensor:
    for value in values:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, (list, tuple)):
            return _first_tensor(value)
    raise TypeError("a label function was called without a tensor")


def mean_of_last(labels: Tensor, count: int) -> Tensor:
    """The mean over the last ``count`` dimensions before K."""
    return labels.mean(tuple(range(-1 - count, -1))) if count else labels


def normalize_rows(matrices: Tensor) -> Tensor:
    """Norm: absolute values, each row divided by its sum; rows without a sum mix equally."""
    matrices = matrices.abs()  # a copy, on which all else is done in place
    largest = matrices.amax(-1, keepdim=True)
    matrices = matrices.div_(largest)  # so that neither huge nor denormal rows lose their sum
    matrices = matrices.div_(matrices.sum(-1, keepdim=True))
    # Rows of noughts, and those with an entry that is not finite, are NaN throughout by now.
    return matrices.nan_to_num_(1 / matrices.shape[-1])
