"""The reference: every public name is on one of its pages, every option of the command line too."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import labeltrace
from labeltrace import plugins
from labeltrace.cli.app import app

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PACKAGES = ("analysis", "figures", "mixing", "models_zoo", "training")

DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
IMPORT = re.compile(r"^from (labeltrace[.\w]*) import ([\w, ]+)$", re.MULTILINE)
COMMAND = re.compile(r"^## (.+?)$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"`(--?[\w-]+)")


def shown() -> list[str]:
    """What the pages say by name."""
    pages = sorted(REFERENCE.glob("*.md"))
    return [name for page in pages for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))]


def found(name: str) -> Any:
    """The object of a full name."""
    module, _, attribute = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(module), attribute)


def public() -> Iterator[str]:
    """Every name that users are to know of."""
    for module in (labeltrace, *(found(f"labeltrace.{package}") for package in PACKAGES)):
        yield from (f"{module.__name__}.{name}" for name in module.__all__)
    for plugin in pkgutil.iter_modules(plugins.__path__):
        yield f"labeltrace.plugins.{plugin.name}"


def used() -> Iterator[str]:
    """Every name that the other pages import from one of labeltrace's modules."""
    for page in REFERENCE.parent.glob("*.md"):
        for module, names in IMPORT.findall(page.read_text(encoding="utf-8")):
            yield from (f"{module}.{name}" for name in names.split(", "))


def test_every_public_name_has_its_place() -> None:
    documented = {id(found(name)) for name in shown() if not isinstance(found(name), str)}
    inside = [found(name).__name__ for name in shown() if inspect.ismodule(found(name))]
    missing = [
        name
        for name in {*public(), *used()} - {*shown()}
        if not inspect.ismodule(found(name))  # its own names are asked for
        and id(found(name)) not in documented
        and name.rpartition(".")[0] not in inside
    ]
    assert not missing, f"add `::: NAME` to a page of docs/reference/ for {sorted(missing)}"


def test_nothing_is_said_twice() -> None:
    names = shown()
    assert len(names) == len(set(names))


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The commands of a group and of the groups in it, by the words that call them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_the_command_line_page_has_every_command_and_its_options() -> None:
    page = (REFERENCE / "command-line.md").read_text(encoding="utf-8")
    written = {name: set(OPTION.findall(text)) for name, text in COMMAND.findall(page)}
    true = {
        name: {
            option
            for parameter in command.params
            if parameter.param_type_name == "option" and parameter.name != "help"
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for name, command in commands(typer.main.get_command(app))
    }
    assert written == true, "docs/reference/command-line.md is to say what --help says"
