"""The input that carries labels: the first tensor among the arguments of a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten

from labeltrace.errors import CaptureError


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, Tensor]:
    """The first tensor among the leaves of the arguments, after its index among them.

    Raises:
        CaptureError: there is none.
    """
    leaves, _ = tree_flatten((args, dict(kwargs)))
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            return index, leaf
    raise CaptureError(
        "the model was called without a tensor, so nothing can carry labels; pass the image batch "
        "as the first argument (it may lie inside a list, tuple or dict)"
    )


def checked_channel_dim(image: Tensor, channel_dim: int) -> int:
    """The channel axis of the input that carries labels, counted from the front.

    Raises:
        CaptureError: the input has no such axis, or it is the batch axis.
    """
    rank = image.dim()
    dim = channel_dim + rank if channel_dim < 0 else channel_dim
    if rank < 2 or not 0 < dim < rank:
        raise CaptureError(
            f"the input that carries labels has shape {tuple(image.shape)}; it needs a batch axis "
            f"first and a channel axis, here channel_dim={channel_dim}; pass channel_dim= to align "
            "for inputs that have their channels elsewhere"
        )
    return dim
