"""The page: one HTML file with its style, scripts, libraries and data inside."""

from __future__ import annotations

import html
import re
from importlib.resources import files

from labeltrace.report.schema import Report

LIBRARIES = ("cytoscape.min.js", "cytoscape-dagre.min.js")
SCRIPTS = ("data.js", "colours.js", "graph.js", "pictures.js", "details.js", "search.js", "main.js")
_MARK = re.compile(r"\{\{(\w+)\}\}")
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)


def page(report: Report) -> str:
    """A report as HTML that needs no other file and no network."""
    libraries = (_SOURCE_MAP.sub("", _read("vendor", name)) for name in LIBRARIES)
    scripts = (_read("page", name) for name in SCRIPTS)
    parts = {
        "title": html.escape(f"{report.model} · labeltrace"),
        "style": _read("page", "page.css"),
        "libraries": "\n".join(libraries),
        "data": report.json().replace("<", "\\u003c"),  # no tag ends the script element
        "scripts": "\n".join(scripts),
    }
    return _MARK.sub(lambda mark: parts[mark[1]], _read("page", "page.html"))


def _read(folder: str, name: str) -> str:
    return files("labeltrace.report").joinpath(folder, name).read_text(encoding="utf-8")
