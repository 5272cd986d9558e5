"""Keep freed memory in the process: page faults can cost more than what a benchmark measures.

Whether glibc returns freed memory to the system, and gets it again page by page, depends on what is
at the end of its heap. Forward passes of DeiT-S at batch 8 had between 0 and 89,000 page faults, up
to 0.16 s of processor time, with and without labels. Which method has them is random.
"""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt; the numbers are from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER, _NONE = -1, 0


def keep_freed_memory() -> bool:
    """Make this process keep the memory it frees, for later allocations.

    Returns:
        Whether the C library supports it: glibc does.
    """
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    return bool(set_option(_TRIM_THRESHOLD, _NEVER) and set_option(_MMAP_MAX, _NONE))
