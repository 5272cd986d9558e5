"""The list of packages on the architecture page is complete, and in the order of imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
TOP_LEVEL = ("rules", "models_zoo")  # packages beside labeltrace/, imported as parts of it
LISTED = re.compile(r"`((?:labeltrace|rules|models_zoo)/[\w/.]*)`")


def unit_of(file: Path) -> str:
    """The entry of a file in the list: a package with all its files, or a module of the root."""
    parts = file.relative_to(ROOT).parts
    depth = 2 if parts[0] == "labeltrace" else 1
    return "/".join(parts) if len(parts) <= depth else "/".join(parts[:depth]) + "/"


def units() -> dict[str, list[Path]]:
    """The files of each entry; labeltrace's own `__init__` is none."""
    found: dict[str, list[Path]] = {}
    for folder in ("labeltrace", *TOP_LEVEL):
        for file in sorted((ROOT / folder).rglob("*.py")):  # follows no links
            if file != ROOT / "labeltrace" / "__init__.py":
                found.setdefault(unit_of(file), []).append(file)
    assert len(found) >= 25, "modules have moved to where this test does not look"
    return found


def imported(file: Path) -> Iterator[str]:
    """What a file imports from labeltrace, inside functions too, as dotted names."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "labeltrace":
            yield from (f"labeltrace.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively; imports are absolute here"
            yield node.module or ""


def imported_units(file: Path) -> Iterator[str]:
    for name in imported(file):
        package, *path = name.split(".")
        if package != "labeltrace" or not path:
            continue
        if path[0] in TOP_LEVEL:
            yield f"{path[0]}/"
        else:
            folder = ROOT / "labeltrace" / path[0]
            yield f"labeltrace/{path[0]}/" if folder.is_dir() else f"labeltrace/{path[0]}.py"


def listed() -> list[str]:
    """The first column of the page's table."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1] for line in lines if line.startswith("| `")]
    return [unit for row in rows for unit in LISTED.findall(row)]


def test_the_page_lists_everything_once() -> None:
    assert sorted(listed()) == sorted(units())


def test_imports_go_one_way() -> None:
    order = {unit: index for index, unit in enumerate(listed())}
    upwards = [
        f"{file.relative_to(ROOT)} imports {other}"
        for unit, files in units().items()
        for file in files
        for other in imported_units(file)
        if order[other] > order[unit]
    ]
    assert not upwards


def test_the_root_is_small() -> None:
    """What users hold first; everything else is in a package whose name says the stage."""
    assert len(list((ROOT / "labeltrace").glob("*.py"))) <= 12
