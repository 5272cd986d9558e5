"""Cross-references in docstrings: ``:func:`name` `` becomes a link, or code where there is no page.

Docstrings name things as Sphinx does, in the scope that they stand in. Links are optional in the
words of mkdocs-autorefs: what the reference pages leave out stays code.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):`~?([\w.]+)`")


class SphinxRoles(griffe.Extension):
    """Rewrite the roles in the docstrings of a package when it has been loaded."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite all docstrings below a package."""
        _rewrite(pkg)


def _rewrite(scope: griffe.Object) -> None:
    if scope.docstring is not None:
        scope.docstring.value = ROLE.sub(
            lambda found: _reference(found[1], scope), scope.docstring.value
        )
    for member in scope.members.values():
        if isinstance(member, griffe.Object):  # an alias has its docstring from elsewhere
            _rewrite(member)


def _reference(name: str, scope: griffe.Object) -> str:
    text = f"<code>{escape(name)}</code>"
    return f'<autoref optional identifier="{_path(name, scope)}">{text}</autoref>'


def _path(name: str, scope: griffe.Object) -> str:
    """The full path of a name that stands in the docstring of an object."""
    try:
        return scope.resolve(name)
    except griffe.NameResolutionError:
        return name
