"""What commands share: errors for a user to read, and where a user's own packages are."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import typer

from labeltrace.errors import LabelTraceError


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    """End with one message and exit code 1 where labeltrace raises an error on purpose."""
    try:
        yield
    except LabelTraceError as error:
        typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def import_from_here() -> None:
    """Find the user's packages in the folder where the command runs, as `python -m` does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
