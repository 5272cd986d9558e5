"""Helpers of all commands: error messages, and the import path for the user's packages."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import typer

from labeltrace.errors import LabelTraceError


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Inside this context, print labeltrace's errors as one message and exit with code 1."""
    try:
        yield
    except LabelTraceError as error:
        typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def add_cwd_to_path() -> None:
    """Add the current folder to the import path, as `python -m` does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
