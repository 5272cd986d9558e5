"""The errors that labeltrace raises on purpose, all under one base class."""

from __future__ import annotations

from collections.abc import Iterable


class LabelTraceError(Exception):
    """Base of every error that labeltrace raises; catch it to catch them all."""


class CaptureError(LabelTraceError):
    """A model cannot be captured as a graph: `torch.export` stopped, or its inputs do not fit."""


class UnknownOperatorError(LabelTraceError):
    """A captured graph holds operators on the label's way that no rule serves.

    Attributes:
        operators: their names, each once.
    """

    def __init__(self, message: str, operators: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.operators = tuple(dict.fromkeys(operators))


class LayoutError(LabelTraceError):
    """The positions or channels of an activation cannot be followed through an operator."""


class NotationError(LabelTraceError, ValueError):
    """The text of an equation in index notation, `"b h q k, b k -> b q"`, cannot be read."""


class LabelError(LabelTraceError, ValueError):
    """A label image, class indices or targets, or the settings that make them, cannot be used."""
