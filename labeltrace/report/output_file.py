"""Write a text file atomically."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labeltrace.errors import ReportError


@contextmanager
def atomic_text_file(path: Path) -> Iterator[Callable[[str], None]]:
    """A function that writes the whole text of a file at once; until then the file is unchanged.

    An unwritable file raises an error on entry, before anything is computed.

    Raises:
        ReportError: the file cannot be written.
    """
    if path.is_dir():
        raise ReportError(f"{path} is a folder; give the name of a file in it")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ReportError(
            f"{path} cannot be written: {error.strerror or error}; the folder {path.parent} must "
            "exist and be writable"
        ) from error
    os.close(handle)
    unfinished = Path(name)

    def write(text: str) -> None:
        try:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.chmod(0o666 & ~_umask())
            unfinished.replace(path)
        except OSError as error:
            raise ReportError(
                f"{path} cannot be written: {error.strerror or error}; free disk space or give "
                "another file"
            ) from error

    try:
        yield write
    finally:
        unfinished.unlink(missing_ok=True)


def _umask() -> int:
    """The permissions that new files lack. The operating system reports them only when set."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
