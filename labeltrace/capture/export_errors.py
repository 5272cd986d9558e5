"""What to say when `torch.export` stops."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from labeltrace.errors import model_line

_CAPTURE_FOLDER = str(Path(__file__).parent)


def first_lines(error: Exception, count: int = 1) -> str:
    """The class of an error and the first lines of its message that are not blank, as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *([" ".join(lines[:count])] if lines else [])])


def explain_failed_export(
    model: nn.Module, error: Exception, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str:
    """The model, the shapes, the line of the model that stopped the export, and what to do."""
    leaves, _ = tree_flatten((args, dict(kwargs)))
    shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves if isinstance(leaf, Tensor))
    line = model_line(error, skip=_CAPTURE_FOLDER)
    plain = _error_of_plain_call(model, args, kwargs)
    if plain is not None:
        line = model_line(plain, skip=_CAPTURE_FOLDER) or line
    where = f"\n  stopped at {line}" if line else ""
    head = f"{type(model).__name__} cannot be captured with inputs of shape {shapes}{where}\n"
    if plain is not None:
        return (
            f"{head}  {first_lines(plain)}\n"
            "  The model itself fails on these inputs, without labels too: try model(...) first. "
            "Do their shapes, dtype and device fit the model?"
        )
    return (
        f"{head}  {first_lines(error)}\n"
        "  The model runs on these inputs, but torch.export must be able to follow its code: "
        "no branch or size may depend on the values of tensors. Change that line, or align the "
        "part of the model that has none (for a detector: its backbone), or let the model run as "
        'it is: align(model, engine="recorded").'
    )


def _error_of_plain_call(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Exception | None:
    """What a copy of the model raises on these inputs; None if it runs, or cannot be copied."""
    try:
        twin = copy.deepcopy(model)
    except Exception:  # then nothing can be said about the plain model
        return None
    args, kwargs = tree_map(_own, args), tree_map(_own, dict(kwargs))
    try:
        with torch.no_grad():
            twin(*args, **kwargs)
    except Exception as error:  # whatever it is, it is the caller's answer
        return error
    return None


def _own(leaf: Any) -> Any:
    """A tensor of one's own, so that the model may write to it."""
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
