"""Errors in code that builds a model, as one kind of error that names the line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from labeltrace.errors import LabelTraceError, ModelLoadingError, model_line

_OWN_FOLDER = str(Path(__file__).parent)


@contextlib.contextmanager
def wrap_building_errors(what: str, verb: str = "building") -> Iterator[None]:
    """Turn any error of foreign code into a `ModelLoadingError` that says where it occurred.

    Raises:
        ModelLoadingError: the code inside raised an error that is not a `LabelTraceError`.
    """
    try:
        yield
    except LabelTraceError:
        raise
    except Exception as error:
        line = model_line(error, skip=_OWN_FOLDER)
        where = f"\n  stopped at {line}" if line and not line.startswith("<") else ""
        raise ModelLoadingError(
            f"{verb} {what} failed in its own code: {first_line(error)}{where}"
        ) from error


def first_line(error: BaseException) -> str:
    """The class of an error and the first line of its message."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
