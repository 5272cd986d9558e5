"""The page: one HTML file that contains its style, scripts, libraries and data."""

from __future__ import annotations

import html
import re
from importlib.resources import files

from labeltrace.report.schema import Report

LIBRARIES = ("cytoscape.min.js", "cytoscape-dagre.min.js")
SCRIPTS = ("data.js", "colors.js", "graph.js", "pictures.js", "details.js", "search.js", "main.js")
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)


def render_page(report: Report) -> str:
    """A report as HTML that needs no other files and no network."""
    libraries = (_SOURCE_MAP.sub("", _read("vendor", name)) for name in LIBRARIES)
    scripts = (_read("page", name) for name in SCRIPTS)
    parts = {
        "title": html.escape(f"{report.model} · labeltrace"),
        "style": _read("page", "page.css"),
        "libraries": "\n".join(libraries),
        "data": report.json().replace(
            "<", "\\u003c"
        ),  # so that no tag in it ends the script element
        "scripts": "\n".join(scripts),
    }
    return _PLACEHOLDER.sub(lambda mark: parts[mark[1]], _read("page", "page.html"))


def _read(folder: str, name: str) -> str:
    return files("labeltrace.report").joinpath(folder, name).read_text(encoding="utf-8")
