"""Commands whose packages are optional. Without the packages, a command says what to install."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import typer

from labeltrace.cli.errors import report_errors
from labeltrace.errors import MissingExtraError

# A command that cannot run accepts any arguments, so that its message is about the packages.
ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}


def add_optional(app: typer.Typer, name: str) -> None:
    """Add the function `NAME_command` of `labeltrace.cli.NAME`, or the module's group `app`.

    If a package is missing, add a command that names the extra to install.
    """
    try:
        module: Any = importlib.import_module(f"labeltrace.cli.{name}")
    except MissingExtraError as error:
        help_text = f"Not available: {error}."
        app.command(name, help=help_text, context_settings=ANY_ARGUMENTS)(
            _make_failing_command(error)
        )
        return
    if hasattr(module, "app"):
        app.add_typer(module.app, name=name)
    else:
        app.command(name)(getattr(module, f"{name}_command"))


def _make_failing_command(error: MissingExtraError) -> Callable[[], None]:
    def command() -> None:
        with report_errors():
            raise error

    return command
