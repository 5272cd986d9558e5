"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labeltrace.errors import ReportError


@contextmanager
def writable(path: Path) -> Iterator[Callable[[str], None]]:
    """A function that puts a text into a file at once, which is left as it was until then.

    Whether the file can be written is known before anything is computed.

    Raises:
        ReportError: it cannot.
    """
    if path.is_dir():
        raise ReportError(f"{path} is a folder; give the name of a file in it")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ReportError(
            f"{path} cannot be written: {error.strerror or error}; the folder {path.parent} must "
            "be there and writable"
        ) from error
    os.close(handle)
    unfinished = Path(name)

    def write(text: str) -> None:
        try:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.chmod(0o666 & ~_umask())
            unfinished.replace(path)
        except OSError as error:
            raise ReportError(f"{path} cannot be written: {error.strerror or error}") from error

    try:
        yield write
    finally:
        unfinished.unlink(missing_ok=True)


def _umask() -> int:
    """What new files lack; it can be read by setting it only."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
