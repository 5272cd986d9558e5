"""What to say when `torch.export` stops."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

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
    where = f"\n  stopped at {line}" if line else ""
    return (
        f"{type(model).__name__} cannot be captured with inputs of shape {shapes}{where}\n"
        f"  {first_lines(error)}\n"
        "  The model must run on these inputs, and torch.export must be able to follow its code: "
        "no branch or size may depend on the values of tensors. Change that line, or align the "
        "part of the model that has none (for a detector: its backbone)."
    )
