"""One capture at a time: `torch.export` changes the state of the whole process while it runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

_LOCK: Final = threading.RLock()
_threads: list[int] = []  # that hold the lock, once for each time


@contextlib.contextmanager
def capturing() -> Iterator[None]:
    """The time in which a thread captures a model; other threads wait until it is over."""
    with _LOCK:
        _threads.append(threading.get_ident())
        try:
            yield
        finally:
            _threads.pop()


def wait_for_captures() -> None:
    """Wait until no other thread captures: its export would see what this one calls."""
    if _threads and _threads[-1] != threading.get_ident():
        with _LOCK:
            pass
