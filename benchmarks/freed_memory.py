"""Freed memory that stays with the process: to fetch it anew can cost more than what is measured.

Whether glibc hands freed memory back to the system, and fetches it again page by page, depends on
what happens to lie at the end of its heap.  Forward passes of DeiT-S at batch 8 took from none to
89,000 page faults, up to 0.16 s of processor time, with labels as well as without: which method of
a run they hit is luck.
"""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt, by their numbers in malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER, _NONE = -1, 0


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, for whatever allocates next.

    Returns:
        Whether its C library could be told: glibc's can.
    """
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    return bool(set_option(_TRIM_THRESHOLD, _NEVER) and set_option(_MMAP_MAX, _NONE))
