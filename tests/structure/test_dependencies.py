"""What is imported is declared in pyproject.toml: for everybody, or in the extra that needs it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENT = re.compile(r"([\w-]+)(?:\[([\w,]+)\])?")

# The names under which packages are imported, where those differ.
PROVIDED_BY = {"PIL": "pillow", "sklearn": "scikit-learn"}
# `torch.utils.tensorboard` is a part of torch that needs another package.
NEEDED_BY_TORCH = {"torch.utils.tensorboard": "tensorboard"}
# A build of torch for CUDA brings it, and only such a build can run what imports it.
WITH_TORCH = {"triton"}
# The Trainer of transformers imports it.
NOT_IMPORTED = {"accelerate"}

# Files that need an extra, and which; all others have the declared dependencies alone.
EXTRAS = {
    "labeltrace/cli/": {"cli"},
    "labeltrace/cli/demo.py": {"demo"},
    "labeltrace/cli/report.py": {"report"},
    "labeltrace/cli/train.py": {"train"},
    "labeltrace/cli/zoo.py": {"zoo"},
    "labeltrace/figures/": {"figures"},
    "labeltrace/demo.py": {"demo"},
    "labeltrace/photographs.py": {"demo", "report"},
    "labeltrace/report/": {"report"},
    "labeltrace/training/": {"train"},
    "labeltrace/zoo_sweep/": {"zoo"},
    "labeltrace/plugins/lightning.py": {"lightning"},
    "labeltrace/plugins/transformers.py": {"transformers"},
    "models_zoo/": {"zoo"},
}


def packages_of(requirements: list[str]) -> set[str]:
    """The packages of a list of requirements, with those of labeltrace's own extras in it."""
    found: set[str] = set()
    for requirement in requirements:
        match = REQUIREMENT.match(requirement)
        assert match is not None, requirement
        name, extras = match.groups()
        if name == "labeltrace":
            for extra in extras.split(","):
                found |= packages_of(PROJECT["optional-dependencies"][extra])
        else:
            found.add(name)
    return found


CORE = packages_of(PROJECT["dependencies"])


def third_party(file: Path) -> Iterator[str]:
    """The packages that a file imports, inside functions too, but not for type checkers alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = [
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    ]
    for node in ast.walk(tree):
        if node in for_types:
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        for name in names:
            top = name.partition(".")[0]
            yield NEEDED_BY_TORCH.get(name, PROVIDED_BY.get(top, top))


def imports(*folders: str) -> dict[str, set[str]]:
    """The third-party packages that each file imports."""
    own = {*sys.stdlib_module_names, "labeltrace", "tests", "docs", "benchmarks", *WITH_TORCH}
    return {
        file.relative_to(ROOT).as_posix(): set(third_party(file)) - own
        for folder in folders
        for file in sorted((ROOT / folder).rglob("*.py"))  # follows no links
    }


IMPORTS = imports("labeltrace", "rules", "models_zoo")


def test_the_files_are_found() -> None:
    assert len(IMPORTS) >= 180, "modules have moved to where this test does not look"
    assert all(any(file.startswith(path) for file in IMPORTS) for path in EXTRAS)


def extras_of(file: str) -> set[str]:
    """The extras of a file: those of the longest path that is listed."""
    listed = [path for path in EXTRAS if file.startswith(path)]
    return EXTRAS[max(listed, key=len)] if listed else set()


def available(file: str) -> set[str]:
    """What is installed wherever a file is used."""
    extras = [packages_of([f"labeltrace[{extra}]"]) for extra in extras_of(file)]
    return CORE | (set.intersection(*extras) if extras else set())


def test_what_is_imported_is_declared() -> None:
    undeclared = {
        file: sorted(missing)
        for file, packages in IMPORTS.items()
        if (missing := packages - available(file))
    }
    assert not undeclared


def test_what_everybody_installs_is_imported_without_an_extra() -> None:
    used = {
        package for file, packages in IMPORTS.items() if not extras_of(file) for package in packages
    }
    assert used == CORE


@pytest.mark.parametrize("extra", sorted({name for names in EXTRAS.values() for name in names}))
def test_an_extra_brings_nothing_that_is_not_imported(extra: str) -> None:
    declared = {
        requirement
        for requirement in PROJECT["optional-dependencies"][extra]
        if not requirement.startswith("labeltrace[")
    }
    used = {
        package
        for file, packages in IMPORTS.items()
        if extra in extras_of(file)
        for package in packages
    }
    assert packages_of(sorted(declared)) - NOT_IMPORTED <= used


def test_the_extra_of_the_tests_brings_what_they_import() -> None:
    installed = CORE | packages_of(["labeltrace[test]"])
    undeclared = {
        file: sorted(missing)
        for file, packages in imports("tests").items()
        if "mutation" not in file and (missing := packages - installed)
    }
    assert not undeclared
