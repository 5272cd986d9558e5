"""The console that commands print to."""

from __future__ import annotations

import os
import sys

from rich.console import Console

NON_TTY_WIDTH = 160  # columns if the output is no terminal


def wide_console() -> Console:
    """Standard output, with wide lines if it is no terminal."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if known else NON_TTY_WIDTH)
