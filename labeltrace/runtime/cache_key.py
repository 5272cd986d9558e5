"""What a captured graph treats as constant about a call.

That is its arguments, except for the values of tensors and the size of the batch, and the modes
around it. What the graph treats as constant about the model is `labeltrace.model_state`'s matter.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from labeltrace.errors import CaptureError

PLAIN_TYPES = frozenset({bool, int, float, str})
"""The types of the attributes that are part of the key: modes, rates, sizes, names."""


def plain_state(model: nn.Module) -> tuple[Any, ...]:
    """The identities of a model's modules and their attributes of plain types, tuples of them too.

    While `torch.export` runs, it has replaced hooks, methods and parameters of the model. This is
    what is left to compare: modes, rates, sizes and names.
    """
    found: list[Any] = []
    for module in model.modules():
        found.append(id(module))
        found += [value for value in vars(module).values() if _is_plain(value)]
    return tuple(found)


def _is_plain(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return type(value) in PLAIN_TYPES


def call_key(args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> tuple[Any, ...]:
    """What the graph treats as constant about a call.

    Raises:
        CaptureError: an argument is of a type that no graph can hold.
    """
    leaves, spec = tree_flatten((args, dict(kwargs)))
    return (tuple(_leaf_key(leaf, batch) for leaf in leaves), str(spec), _modes(leaves))


def _leaf_key(leaf: Any, batch: int) -> Any:
    if not isinstance(leaf, Tensor):
        if not isinstance(leaf, Hashable):
            raise CaptureError(
                f"an argument of type {type(leaf).__name__} cannot be part of a graph; pass "
                "tensors, numbers, strings, and lists, tuples and dicts of them"
            )
        return (type(leaf), leaf)
    shape: tuple[Any, ...] = tuple(leaf.shape)
    if shape and shape[0] == batch:
        shape = ("batch", *shape[1:])
    return (leaf.dtype, leaf.device, shape)


def _modes(leaves: Iterable[Any]) -> tuple[Any, ...]:
    """The modes around a call that change what a graph records."""
    device = next(leaf.device.type for leaf in leaves if isinstance(leaf, Tensor))
    known = torch.amp.is_autocast_available(device)
    autocast = known and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else None
    return (torch.is_grad_enabled(), autocast, dtype)
