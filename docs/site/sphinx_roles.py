"""Cross-references in docstrings: ``:func:`name` `` becomes a link, or code where there is no page.

Docstrings name things as Sphinx does, in the scope that they stand in.  A name of this package that
does not exist is a warning, which fails a strict build.  What exists and is on no page of the
reference stays code: that is what mkdocs-autorefs calls an optional reference.
"""

from __future__ import annotations

import logging
import re
from html import escape
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):`(~?)([\w.\s]+)`")

log = logging.getLogger("mkdocs.plugins.sphinx_roles")  # warnings below this name count


class SphinxRoles(griffe.Extension):
    """Rewrites the roles in the docstrings of a package when it has been loaded."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite all docstrings below a package."""
        _rewrite(pkg)


def _rewrite(scope: griffe.Object) -> None:
    if scope.docstring is not None:
        scope.docstring.value = ROLE.sub(
            lambda found: _reference(found[2], bool(found[1]), scope), scope.docstring.value
        )
    for member in scope.members.values():
        if isinstance(member, griffe.Object):  # an alias has its docstring from elsewhere
            _rewrite(member)


def _reference(written: str, last_part_alone: bool, scope: griffe.Object) -> str:
    name = "".join(written.split())  # a long one may go on in the next line
    text = escape(name.rpartition(".")[2] if last_part_alone else name)
    path = _path(name, scope)
    return f'<autoref optional identifier="{path}"><code>{text}</code></autoref>'


def _path(name: str, scope: griffe.Object) -> str:
    """The full path of a name that stands in the docstring of an object."""
    try:
        path = scope.resolve(name)
    except griffe.NameResolutionError:
        path = name
    package = scope.package
    ours = "." not in path or path.startswith(f"{package.path}.")
    if ours and not _exists(path, package):
        log.warning(
            "%s: the docstring of %s names %s, which is not there", scope.filepath, scope.path, name
        )
    return path


def _exists(path: str, package: griffe.Module) -> bool:
    try:
        package.modules_collection[path]
    except (KeyError, griffe.AliasResolutionError):
        return False
    return True
