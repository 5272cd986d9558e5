"""Label functions that users write, run like the built-in ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from labeltrace.errors import LabelError
from labeltrace.label_ops.arithmetic import label_arithmetic


def checked_user_function(
    function: Callable[..., Tensor], dimensions: int
) -> Callable[..., Tensor]:
    """A user's label function without gradient, outside autocast, its result checked.

    Args:
        function: takes labels (positions..., K) and tensors of the forward pass, and returns
            labels.
        dimensions: how many dimensions its result has, without K.

    Returns:
        A function of the same arguments, which raises `LabelError` if the result does not have
        these dimensions or not the K sources of the labels; the error names the user's function,
        its file and line. Its `__wrapped__` is the user's function.
    """
    inner = inspect.unwrap(getattr(function, "func", function))  # a partial's function
    code = getattr(inner, "__code__", None)
    name = getattr(inner, "__qualname__", type(function).__qualname__)
    where = f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name

    def checked(labels: Tensor, *tensors: Any) -> Tensor:
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
        _check_result(result, labels.shape[-1], dimensions, where)
        return result.to(torch.float32)

    checked.__name__ = getattr(inner, "__name__", type(function).__name__).strip("<>")
    result = label_arithmetic(checked)
    return functools.update_wrapper(result, function, assigned=(), updated=())


def _check_result(result: object, sources: int, dimensions: int, where: str) -> None:
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
