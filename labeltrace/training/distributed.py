"""The processes of one run, started by torchrun or alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from labeltrace.errors import TrainingError


@dataclass(frozen=True)
class Processes:
    """What one process knows of all.

    Attributes:
        index: this process, from zero.
        count: their number.
        device: where this process computes.
    """

    index: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.index == 0

    def summed(self, numbers: Sequence[float]) -> list[float]:
        """These numbers, summed over all processes."""
        if self.count == 1:
            return list(numbers)
        # In single precision on devices that know no other.
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        sums = torch.tensor(numbers, dtype=dtype, device=self.device)
        dist.all_reduce(sums)
        return list(sums.tolist())


@contextlib.contextmanager
def joined(device: str | None = None) -> Iterator[Processes]:
    """Join the processes that torchrun started; without torchrun be the only one.

    A process group that there is already is used and left.

    Args:
        device: such as `cpu` or `cuda`; None for an accelerator where there is one.

    Raises:
        TrainingError: there are more processes on this machine than accelerators; or, while the
            context lasts, another process died.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1, _device(device, 0))
        return
    own = _device(device, int(os.environ["LOCAL_RANK"]))
    if own.type == "cuda":
        torch.cuda.set_device(own)
    with deaths_told():
        starts = not dist.is_initialized()
        if starts:
            dist.init_process_group(None if own.type == "cuda" else "gloo")
        yield Processes(dist.get_rank(), count, own)
        if starts:
            dist.destroy_process_group()  # not after an error: there it could wait for the dead


def _device(device: str | None, local_index: int) -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    try:
        chosen = torch.device(device) if device else found or torch.device("cpu")
    except RuntimeError as error:
        raise TrainingError(f"there is no device {device!r}: {error}") from error
    if chosen.type != "cuda" or (device and ":" in device):
        return chosen
    if local_index >= torch.cuda.device_count():
        raise TrainingError(
            f"process {local_index} of this machine has no GPU: there are "
            f"{torch.cuda.device_count()}; start as many processes with --nproc-per-node"
        )
    return torch.device("cuda", local_index)


@contextlib.contextmanager
def deaths_told() -> Iterator[None]:
    """Within this context, say what it means that another process does not answer."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"another process of this run died or cannot be reached, its own message says why; "
            f"go on from the last checkpoint with --resume. ({reason})"
        ) from error
