"""Which modules are libraries whose code is taken as it is, and which are followed."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

PURE_LIBRARIES = frozenset({"torch", "numpy", "scipy", "einops", "sympy", "labeltrace"})
"""Packages whose own globals (caches, tables of backends) are no state of a model."""

WALKED_PREFIXES = ("torch.nn.", "torch.distributions.", "torch.ao.nn.")
"""Parts of torch whose objects hold settings of a model: hooks, masks, distributions."""

WALKED_CLASSES = frozenset(
    {
        *("types.SimpleNamespace", "argparse.Namespace", "os._Environ", "_thread._local"),
        *("collections.UserDict", "collections.UserList"),
    }
)
"""Classes of Python's library that hold settings in attributes of their own."""

INSTALLED_FOLDERS = ("site-packages", "dist-packages")
"""Where packages are installed; code elsewhere is the user's own."""


def is_library(module: Any) -> bool:
    """Whether a module of this name belongs to Python's library, torch, numpy and their kin."""
    if not isinstance(module, str):
        return True
    top = module.partition(".")[0]
    return top in PURE_LIBRARIES or (top in sys.stdlib_module_names and top != "__main__")


@cache
def installed_package(module: str) -> str | None:
    """The package of a module that is installed for all programs; None for the user's own code."""
    top = module.partition(".")[0]
    found = sys.modules.get(top)
    places = [getattr(found, "__file__", None) or "", *getattr(found, "__path__", ())]
    installed = any(name in place for place in places for name in INSTALLED_FOLDERS)
    return top if installed else None


def is_library_class(kind: type) -> bool:
    """Whether a class belongs to a library and its objects are taken as they are."""
    module = kind.__module__
    if not is_library(module):
        return False
    named = f"{module}.{kind.__qualname__}"
    return not (named in WALKED_CLASSES or f"{module}.".startswith(WALKED_PREFIXES))
