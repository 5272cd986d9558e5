"""Paths of modules, `"blocks.3.attn"`: what lies in what, and which patterns they match."""

from __future__ import annotations

from fnmatch import fnmatchcase


def lies_in(path: str, module: str) -> bool:
    """Whether a path is that of `module` or of something inside it; `""` is the model itself."""
    return not module or path == module or path.startswith(f"{module}.")


def is_named(path: str, pattern: str) -> bool:
    """Whether a path matches a pattern such as `blocks.*`, name by name."""
    names, parts = path.split("."), pattern.split(".")
    return len(names) == len(parts) and all(map(fnmatchcase, names, parts))


def lies_in_named(path: str, pattern: str) -> bool:
    """Whether a module, or one of the modules around it, matches a pattern."""
    names = path.split(".")
    return any(is_named(".".join(names[:end]), pattern) for end in range(1, len(names) + 1))
