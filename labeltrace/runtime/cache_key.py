"""Settings: all that a captured graph takes for constant about a model and a call of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from labeltrace.errors import CaptureError

PLAIN = frozenset({bool, int, float, str})
"""The types of attributes that are settings: modes, rates, sizes, names."""


def settings_of(model: nn.Module) -> tuple[Any, ...]:
    """Every submodule's identity, plain attributes and hooks, and the parameters' whereabouts.

    This runs at every call: one walk, without the generators of :meth:`torch.nn.Module.modules`.
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
        found += [value for value in attributes.values() if type(value) in PLAIN]
        found += attributes["_forward_pre_hooks"]
        found += attributes["_forward_hooks"]
        waiting += attributes["_modules"].values()
    parameter = next(model.parameters(), None)
    where = None if parameter is None else (parameter.device, parameter.dtype)
    return (where, *found)


def call_settings(args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> tuple[Any, ...]:
    """What a graph takes for constant about a call: its arguments but for the batch, the modes.

    Raises:
        CaptureError: an argument can be no part of a graph.
    """
    leaves, spec = tree_flatten((args, dict(kwargs)))
    return (tuple(_described(leaf, batch) for leaf in leaves), str(spec), _modes(leaves))


def _described(leaf: Any, batch: int) -> Any:
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
