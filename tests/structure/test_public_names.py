"""What `import labeltrace` shows: the public names, and the types that they return."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import labeltrace
from labeltrace import version

ROOT = Path(__file__).parents[2]
FUNCTIONS = [name for name in labeltrace.__all__ if inspect.isfunction(getattr(labeltrace, name))]


def types_in(annotation: Any) -> Iterator[type]:
    """The classes of labeltrace inside an annotation."""
    if isinstance(annotation, type) and annotation.__module__.startswith("labeltrace"):
        yield annotation
    for argument in get_args(annotation):
        yield from types_in(argument)


def test_dir_shows_the_public_names() -> None:
    shown = {name for name in dir(labeltrace) if not name.startswith("__")}
    assert shown == set(labeltrace.__all__)
    assert {"__doc__", "__file__", "__version__"} <= set(dir(labeltrace))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_function_returns_can_be_imported(name: str) -> None:
    returned = get_type_hints(getattr(labeltrace, name))["return"]
    hidden = [kind for kind in types_in(returned) if kind.__name__ not in labeltrace.__all__]
    assert not hidden


def test_the_version_is_written_once() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in settings["project"]
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "labeltrace.version.__version__"
    }
    assert labeltrace.__version__ == version.__version__
