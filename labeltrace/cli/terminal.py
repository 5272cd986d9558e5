"""Where commands print."""

from __future__ import annotations

import os
import sys

from rich.console import Console

WIDTH_OF_FILES = 160  # columns where the output is no terminal, which alone knows its width


def wide_console() -> Console:
    """Standard output, with wide lines where it is no terminal."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if known else WIDTH_OF_FILES)
