"""What all label functions share: no gradient, no autocast, and the paper's Norm."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def label_arithmetic(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A decorator that runs a label function without gradient and outside autocast."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device_type = _first_tensor(args).device.type
        with torch.no_grad():
            if not torch.is_autocast_enabled(device_type):  # cheaper than to switch it off
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
    """The mean over the last `count` dimensions before K."""
    return labels.mean(tuple(range(-1 - count, -1))) if count else labels


def normalize_rows(matrices: Tensor) -> Tensor:
    """Norm of the paper: absolute values, each row (last dimension) divided by its sum.

    A row of zeros, or with an entry that is not finite, mixes equally.

    >>> normalize_rows(torch.tensor([[1.0, -3.0], [0.0, 0.0]]))
    tensor([[0.2500, 0.7500],
            [0.5000, 0.5000]])
    """
    matrices = matrices.abs()  # a copy, which the next steps change in place
    largest = matrices.amax(-1, keepdim=True)
    matrices = matrices.div_(
        largest
    )  # so that no sum of huge or denormal numbers over- or underflows
    matrices = matrices.div_(matrices.sum(-1, keepdim=True))
    # All entries of rows of zeros, and of rows with an entry that is not finite, are NaN now.
    return matrices.nan_to_num_(1 / matrices.shape[-1])
