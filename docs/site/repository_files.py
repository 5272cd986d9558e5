"""Files of the repository outside of docs/ that pages link to, shown as pages of the site.

The links in docs/ lead to files of the repository, so that they work wherever it is browsed. The
site has the same files under the same names: Markdown as it is, a script as a page of its code.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
MARKDOWN = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/RESULTS.md",
    "tests/mutation/SURVIVORS.md",
)
SCRIPTS = "examples/*.py"

OUT_OF_DOCS = re.compile(r"\]\(\.\./(?=[\w/]+\.(?:py|md))([^)\s#]+)")
INTO_DOCS = re.compile(r"\]\(((?:\.\./)*)docs/")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files to those of docs/."""
    for name in MARKDOWN:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=INTO_DOCS.sub(r"](\1", text)))
    for script in sorted(ROOT.glob(SCRIPTS)):
        name = script.relative_to(ROOT).as_posix()
        page = f"# {name}\n\n```python\n{script.read_text(encoding='utf-8')}```\n"
        files.append(File.generated(config, f"{name}.md", content=page))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links out of docs/ lead to those pages; they stand on pages of its first level alone."""
    if "/" in page.file.src_uri:
        return markdown
    return OUT_OF_DOCS.sub(_link, markdown)


def _link(found: re.Match[str]) -> str:
    path = found[1]
    return f"]({path}.md" if path.endswith(".py") else f"]({path}"
