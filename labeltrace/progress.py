"""Progress bars on stderr: over the items of a loop, and of counted work.

`rich` is imported where a bar is made, since it takes long to import.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

T = TypeVar("T")


def tracked(items: Iterable[T], what: str, total: float | None = None) -> Iterator[T]:
    """Iterate over `items` with a transient progress bar, shown only on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(
        items,
        what,
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def counting_bar(console: Console) -> Progress:
    """A bar that shows the present item, how many are done, the time spent and the time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
