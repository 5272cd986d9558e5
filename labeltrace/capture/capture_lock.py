"""One capture at a time: `torch.export` changes the state of the whole process while it runs."""

from __future__ import annotations

import threading
from typing import Final

CAPTURE_LOCK: Final = threading.RLock()
"""Held while a model is captured, and while the engine of a call is chosen."""

_held_by: list[int] = []


def hold() -> None:
    """Take the lock; a thread may take it again."""
    CAPTURE_LOCK.acquire()
    _held_by.append(threading.get_ident())


def release() -> None:
    """Give the lock back."""
    _held_by.pop()
    CAPTURE_LOCK.release()


def wait_for_captures() -> None:
    """Wait until no other thread captures: its export would see the calls of this one."""
    if _held_by and _held_by[-1] != threading.get_ident():
        with CAPTURE_LOCK:
            pass
