"""The packages: each is in the list that is installed, and the wheel holds every file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP_LEVEL = ("labeltrace", "rules", "models_zoo")

# Prints the file of each module that is named on the command line.
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    print(importlib.import_module(name).__file__)
"""


def sources() -> list[Path]:
    """Every Python file of the library; `rglob` follows no links."""
    found = [file for folder in TOP_LEVEL for file in sorted((ROOT / folder).rglob("*.py"))]
    assert len(found) >= 180, "modules have moved to where this test does not look"
    return found


def module_name(file: Path) -> str:
    """The name under which a file is imported: rules/ and models_zoo/ are parts of labeltrace."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "labeltrace" else ("labeltrace", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_the_list_of_packages_is_that_of_the_folders() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = settings["tool"]["setuptools"]["packages"]
    folders = {file.parent for file in sources()}
    assert sorted(listed) == sorted(module_name(folder / "__init__.py") for folder in folders)
    assert all((folder / "__init__.py").is_file() for folder in folders)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the contents of the wheel, and nothing else.

    It is built from a copy: a build leaves files behind, which the next one would take for sources.
    """
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "sources"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in TOP_LEVEL:
        shutil.copytree(ROOT / name, copy / name, symlinks=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, copy],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_every_module_is_imported_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    names = [module_name(file) for file in sources() if file.stem != "__main__"]
    ran = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    elsewhere = [
        line for line in ran.stdout.splitlines() if not Path(line).is_relative_to(installed)
    ]
    assert not elsewhere, "modules that the wheel lacks"


def test_the_wheel_holds_the_data_files(installed: Path) -> None:
    data = {
        file.relative_to(ROOT)
        for folder in TOP_LEVEL
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    assert len(data) >= 10
    missing = [
        file
        for file in data
        if not (
            installed / ("" if file.parts[0] == "labeltrace" else "labeltrace") / file
        ).is_file()
    ]
    assert not missing, "add them to tool.setuptools.package-data"
