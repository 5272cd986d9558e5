"""Progress bars, on terminals only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def tracked(items: Iterable[T], what: str, total: float | None = None) -> Iterator[T]:
    """The items, with a bar on the error stream that goes when they are done."""
    console = Console(stderr=True)
    yield from track(
        items,
        what,
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
