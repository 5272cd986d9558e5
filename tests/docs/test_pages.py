"""The pages for people: their code runs and prints what they show, their links lead somewhere, and
their list of rooms is the true order of imports."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What a page takes for granted: README's training loop goes over the reader's own data.
GIVEN: dict[str, dict[str, Any]] = {
    "README.md": {"loader": [(torch.zeros(2, 3, 224, 224), torch.tensor([3, 7]))]}
}

EXAMPLE = re.compile(
    r"^(?P<not_run><!-- not run: .+ -->\n+)?"
    r"```python\n(?P<code>.*?)^```$"
    r"(?:\n+```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]*)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
ROOM = re.compile(r"`((?:labeltrace|rules|models_zoo)/[\w/.]*)`")
TOP_LEVEL = ("rules", "models_zoo")  # packages beside labeltrace, imported as parts of it


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# Code.


@dataclass(frozen=True)
class Example:
    """A block of Python; `output` is the block of text right behind it, if there is one."""

    code: CodeType
    output: str | None


def examples(page: Path) -> Iterator[Example]:
    """The blocks of Python on a page, but for those marked `<!-- not run: reason -->`."""
    text = page.read_text(encoding="utf-8")
    for found in EXAMPLE.finditer(text):
        if found["not_run"] is None:
            above = "\n" * text.count("\n", 0, found.start("code"))  # the page's line numbers
            yield Example(compile(above + found["code"], str(page), "exec"), found["output"])


@pytest.mark.parametrize("page", [p for p in PAGES if any(examples(p))], ids=name)
def test_code_runs_and_prints_what_the_page_shows(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where its functions say they live
    vars(module).update(GIVEN.get(name(page), {}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for example in examples(page):
            exec(example.code, vars(module))
            printed = capsys.readouterr().out
            if example.output is not None:
                assert printed.strip() == example.output.strip()


# Links.


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if link.startswith("https://"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    queue = [ROOT / "README.md"]
    while queue:
        page = queue.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        links = LINK.findall(page.read_text(encoding="utf-8"))
        paths = [link.partition("#")[0] for link in links if not link.startswith("https://")]
        queue += [(page.parent / path).resolve() for path in paths if path]
    assert set(PAGES) <= seen


# Rooms.


def room_of(file: Path) -> str:
    """The entry of a file in the table of rooms: a package is one room."""
    parts = file.relative_to(ROOT).parts
    depth = 2 if parts[0] == "labeltrace" else 1
    return "/".join(parts) if len(parts) <= depth else "/".join(parts[:depth]) + "/"


def rooms() -> dict[str, list[Path]]:
    """The files of each room."""
    found: dict[str, list[Path]] = {}
    inside = [file.parent for file in (ROOT / "labeltrace").glob("*/__init__.py")]
    packages = [f"labeltrace/{folder.name}" for folder in inside if not folder.is_symlink()]
    for folder in ("labeltrace", *packages, *TOP_LEVEL):
        for file in sorted(
            (ROOT / folder).glob("*.py")
            if folder == "labeltrace"
            else (ROOT / folder).rglob("*.py")
        ):
            if folder != "labeltrace" or file.stem != "__init__":
                found.setdefault(room_of(file), []).append(file)
    return found


def imported_rooms(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        package, *path = node.module.split(".")
        if package != "labeltrace":
            continue
        for imported in [path[0]] if path else [alias.name for alias in node.names]:
            if imported in TOP_LEVEL:
                yield f"{imported}/"
            else:
                folder = ROOT / "labeltrace" / imported
                yield f"labeltrace/{imported}/" if folder.is_dir() else f"labeltrace/{imported}.py"


def listed_rooms(page: str) -> list[str]:
    """The rooms in the first column of a page's tables."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1] for line in lines if line.startswith("| `")]
    return [room for row in rows for room in ROOM.findall(row)]


def test_the_architecture_page_lists_every_room_once() -> None:
    assert sorted(listed_rooms("docs/architecture.md")) == sorted(rooms())


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_a_room_imports_only_from_rooms_above_it(page: str) -> None:
    listed = listed_rooms(page)
    assert set(listed) <= set(rooms())
    upwards = [
        f"{room} imports {other}"
        for index, room in enumerate(listed)
        for file in rooms()[room]
        for other in imported_rooms(file)
        if other in listed[index + 1 :]
    ]
    assert not upwards
