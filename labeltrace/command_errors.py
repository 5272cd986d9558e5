"""Errors that a user of the command line is to read."""

from __future__ import annotations

import contextlib
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
