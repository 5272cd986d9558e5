"""Errors about packages that are not installed: they name the extra that brings them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from labeltrace.errors import MissingExtraError


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Import packages of an extra of pyproject.toml inside this context.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "labeltrace").partition(".")[0]
        if isinstance(error, MissingExtraError) or missing == "labeltrace":
            raise
        raise MissingExtraError(
            f"this needs {missing}, which is not installed; pip install 'labeltrace[{name}]'",
            name=missing,
        ) from error
