"""Atomic file writes: a file is written under a temporary name, then renamed."""

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


def write_file(path: Path, content: bytes) -> None:
    """Write or replace a file. If writing fails, the old file is unchanged.

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
            f"{path} cannot be written: {error.strerror}; an older version of the file, if any, is "
            f"unchanged. Free disk space, then continue with --resume"
        ) from error


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors in the format of `torch.save`; if writing fails, the old file is unchanged.

    The content is serialized in memory first, because the error that `torch.save` raises on a full
    disk does not mention the disk.

    Raises:
        TrainingError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_file(path, buffer.getvalue())


def read_tensors(path: Path) -> Any:
    """Read a file written by `torch.save` or safetensors; tensors are on the CPU.

    Raises:
        TrainingError: the file cannot be read, or holds more than tensors and plain data.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a wrong file raises many kinds of error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise TrainingError(
            f"{path} cannot be read as a checkpoint: {reason}; give a file written by torch.save "
            f"or safetensors that holds only tensors and plain data"
        ) from error
