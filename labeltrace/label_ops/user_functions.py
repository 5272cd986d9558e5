"""Label functions of the user's own, run like the built-in ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from labeltrace.errors import LabelError
from labeltrace.label_ops.arithmetic import label_arithmetic


def checked(function: Callable[..., Tensor], dimensions: int) -> Callable[..., Tensor]:
    """``function`` without gradient, outside autocast, its result checked.

    Raises, when called:
        LabelError: the result is no field of ``dimensions`` dimensions over the K sources of the
            labels; the error names the function's file and line.
    """
    inner = inspect.unwrap(getattr(function, "func", function))  # a partial's function
    code = getattr(inner, "__code__", None)
    name = getattr(inner, "__qualname__", type(function).__qualname__)
    where = f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name

    def wrapped(labels: Tensor, *tensors: Any) -> Tensor:
        detached = [t.detach() if isinstance(t, Tensor) else t for t in tensors]
        try:
            result = function(labels, *detached)
        except Exception as error:
            shapes = [tuple(t.shape) for t in detached if isinstance(t, Tensor)]
            error.add_note(
                f"raised in the label function {where}, called with labels of shape "
                f"{tuple(labels.shape)} and tensors of shapes {shapes}"
            )
            raise
        sources = labels.shape[-1]
        if not isinstance(result, Tensor) or result.dim() != dimensions + 1:
            shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise LabelError(
                f"the label function {where} returned {shape}; its rule promised {dimensions} "
                f"dimensions and the {sources} sources last"
            )
        if result.shape[-1] != sources:
            raise LabelError(
                f"the label function {where} returned {tuple(result.shape)}; the last dimension "
                f"must be the {sources} sources"
            )
        return result.to(torch.float32)

    wrapped.__name__ = getattr(inner, "__name__", type(function).__name__).strip("<>")
    return label_arithmetic(wrapped)
