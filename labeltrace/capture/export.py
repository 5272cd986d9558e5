"""Exports of a model by `torch.export`, with a dynamic batch or with the batch as it is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_map

from labeltrace.capture.batch import SMALLEST_DYNAMIC_BATCH
from labeltrace.capture.export_errors import explain_failed_export
from labeltrace.errors import CaptureError


def export_dynamic(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batch: int
) -> ExportedProgram:
    """Export with a dynamic batch: axis 0 of every tensor that is `batch` long there.

    Raises:
        CaptureError: the model's `forward` does not take these arguments.
        Exception: whatever `torch.export` raises on a model that allows no dynamic batch.
    """
    hint = max(batch, SMALLEST_DYNAMIC_BATCH)

    def example(leaf: Any) -> Any:
        if _has_batch(leaf, batch) and batch != hint:
            return leaf.repeat_interleave(hint, 0)
        return _alias(leaf)

    def dynamic(leaf: Any) -> Any:
        return {0: Dim.DYNAMIC} if _has_batch(leaf, batch) else None

    names = _bound_names(model, args, kwargs)
    shapes: Any = tree_map(dynamic, {**dict(zip(names, args, strict=False)), **kwargs})
    if len(names) < len(args):  # more positional arguments than named ones
        shapes = tree_map(dynamic, args)
    return torch.export.export(
        model,
        tree_map(example, args),
        tree_map(example, kwargs),
        strict=False,
        dynamic_shapes=shapes,
    )


def export_fixed(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ExportedProgram:
    """Export for these sizes only.

    Raises:
        CaptureError: `torch.export` cannot follow the model.
    """
    args, kwargs = tree_map(_alias, args), tree_map(_alias, kwargs)
    try:
        return torch.export.export(model, args, kwargs, strict=False)
    except Exception as error:
        raise CaptureError(explain_failed_export(model, error, args, kwargs)) from error


def _alias(leaf: Any) -> Any:
    """The same values as another tensor: an export leaves marks on the tensors that it gets."""
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.detach().requires_grad_(leaf.requires_grad)


def _has_batch(leaf: Any, batch: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == batch


def _bound_names(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, ...]:
    """The names of the positional arguments in the signature of the model's `forward`."""
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise CaptureError(
            f"{type(model).__name__} cannot be called so: {error}; pass what its forward takes: "
            f"forward{inspect.signature(model.forward)}"
        ) from error
    named = [name for name in bound.arguments if name not in kwargs]
    parameters = inspect.signature(model.forward).parameters
    return tuple(
        name for name in named if parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL
    )[: len(args)]
