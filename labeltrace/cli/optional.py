"""Commands whose packages are not installed by default: they are there, and say what they need."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import typer

from labeltrace.cli.errors import errors_told
from labeltrace.errors import MissingExtraError

# A command that cannot run takes any arguments, so that its message is about what it needs.
ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}


def add_optional(app: typer.Typer, name: str) -> None:
    """Add `NAME_command` of the module `labeltrace.cli.NAME`, or the group `app` that it has.

    Where a package is missing, add a command that names the extra to install.
    """
    try:
        module: Any = importlib.import_module(f"labeltrace.cli.{name}")
    except MissingExtraError as error:
        help_text = f"Not available: {error}."
        app.command(name, help=help_text, context_settings=ANYTHING)(_failing_with(error))
        return
    if hasattr(module, "app"):
        app.add_typer(module.app, name=name)
    else:
        app.command(name)(getattr(module, f"{name}_command"))


def _failing_with(error: MissingExtraError) -> Callable[[], None]:
    def command() -> None:
        with errors_told():
            raise error

    return command
