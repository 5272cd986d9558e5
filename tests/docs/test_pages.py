"""The pages for people: their code runs and prints what they show, their links lead somewhere."""

from __future__ import annotations

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
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "RESULTS.md",
    ROOT / "tests" / "mutation" / "SURVIVORS.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

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
