"""The cache key of a capture: all that the captured graph treats as constant.

The model contributes the identity, the plain attributes and the hooks of each submodule, and the
device and dtype of its parameters.  The call contributes its arguments, except for the values of
tensors and the size of the batch, and the modes around it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils._pytree import tree_flatten

from labeltrace.capture.model_kinds import check_initialized
from labeltrace.errors import CaptureError

PLAIN_TYPES = frozenset({bool, int, float, str})
"""The types of the attributes that are part of the key: modes, rates, sizes, names."""

UNINITIALIZED = frozenset({UninitializedParameter, UninitializedBuffer})
"""The types of tensors that a lazy module has yet to make; they have no shape."""


def model_key(model: nn.Module) -> tuple[Any, ...]:
    """What the graph treats as constant about a model.

    This runs at every call: one walk, without the generators of `torch.nn.Module.modules`.
    """
    found: list[Any] = []
    seen: set[int] = set()
    waiting: list[nn.Module | None] = [model]
    while waiting:
        module = waiting.pop()
        if module is None or id(module) in seen:
            continue
        seen.add(id(module))
        attributes = module.__dict__
        found.append(id(module))
        found += [value for value in attributes.values() if type(value) in PLAIN_TYPES]
        found += attributes["_forward_pre_hooks"]
        found += attributes["_forward_hooks"]
        tensors = (*attributes["_parameters"].values(), *attributes["_buffers"].values())
        found += [_shape(tensor, model) for tensor in tensors if tensor is not None]
        waiting += attributes["_modules"].values()
    parameter = next(model.parameters(), None)
    where = None if parameter is None else (parameter.device, parameter.dtype)
    return (where, *found)


def _shape(tensor: Tensor, model: nn.Module) -> torch.Size:
    if type(tensor) in UNINITIALIZED:
        check_initialized(model)
    return tensor.shape


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
