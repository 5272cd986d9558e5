"""Files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from labeltrace.errors import TrainingError


def write(path: Path, content: bytes) -> None:
    """Put a file in place of an older one, which stays where writing fails.

    Raises:
        TrainingError: the file cannot be written.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise TrainingError(
            f"{path} cannot be written: {error.strerror}; the last good one, if there is any, is "
            f"as it was. Make room, then go on with --resume"
        ) from error


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Likewise, as `torch.save` writes it.

    In memory first: on a full disk `torch.save` raises an error that does not say so.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write(path, buffer.getvalue())


def read_tensors(path: Path) -> Any:
    """What `torch.save` or safetensors wrote, on the CPU.

    Raises:
        TrainingError: the file cannot be read, or holds more than tensors and plain data.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the many kinds that unpickling a wrong file raises
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise TrainingError(f"{path} cannot be read as a checkpoint: {reason}") from error
