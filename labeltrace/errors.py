"""The errors that labeltrace raises on purpose, all under one base class."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable

import torch

_TORCH_FOLDER = os.path.dirname(torch.__file__) + os.sep
_OWN_FOLDER = os.path.dirname(__file__) + os.sep
_PYTHON_FOLDER = os.path.dirname(os.__file__) + os.sep


class LabelTraceError(Exception):
    """Base of every error that labeltrace raises; catch it to catch them all."""


class CaptureError(LabelTraceError):
    """A model cannot be captured as a graph: `torch.export` stopped, or its inputs do not fit."""


class UnknownOperatorError(LabelTraceError):
    """A captured graph applies operators without a rule to labeled values.

    Attributes:
        operators: the names of these operators, each once.
    """

    def __init__(self, message: str, operators: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.operators = tuple(dict.fromkeys(operators))


class LayoutError(LabelTraceError):
    """The positions or channels of an activation cannot be followed through an operator."""


class NotationError(LabelTraceError, ValueError):
    """The text of an equation in index notation, `"b h q k, b k -> b q"`, cannot be read."""


class LabelError(LabelTraceError, ValueError):
    """A label image, class indices or targets, or the settings that make them, are not valid."""


class MissingExtraError(LabelTraceError, ModuleNotFoundError):
    """A package is not installed that only some parts of labeltrace need."""


class ModelLoadingError(LabelTraceError):
    """No model has this name, or building the model failed."""


class WeightsUnavailableError(ModelLoadingError):
    """Trained weights are not available: there are none, or no network to fetch them."""


class PhotographError(LabelTraceError):
    """A photograph is missing or cannot be read."""


class TrainingError(LabelTraceError):
    """Training cannot start or go on; the last good checkpoint is as it was."""


class ReportError(LabelTraceError):
    """The page of a report cannot be written."""


class CheckError(LabelTraceError):
    """A model aligns, but a check of the zoo sweep finds a number that breaks the contract."""


class RecordsError(LabelTraceError):
    """A file of sweep results cannot be read."""


class WorkerError(LabelTraceError):
    """A process that checks models for the zoo sweep does not start."""


def model_line(error: BaseException, skip: str) -> str:
    """The innermost line of foreign code that an error passed through: file, number and text.

    Lines of torch, of Python's own library and of files whose path begins with `skip` do not
    count.  The result is empty where no other is left.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not (_is_library(frame.filename) or frame.filename.startswith(skip)):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return ""


def callers_level() -> int:
    """The `stacklevel` of a warning that names the line outside labeltrace and torch."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _is_own(frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    return level


def _is_own(file: str) -> bool:
    return file.startswith((_OWN_FOLDER, _TORCH_FOLDER))


def _is_library(file: str) -> bool:
    """Whether a file belongs to torch or to Python's own library."""
    standard = file.startswith(_PYTHON_FOLDER) and "site-packages" not in file
    return standard or file.startswith(_TORCH_FOLDER)
