"""The processes of one run: those that torchrun started, or a single one."""

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
    """All processes of a run, seen from one of them.

    Attributes:
        index: index of this process, from zero.
        count: number of processes.
        device: device of this process.
    """

    index: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes files."""
        return self.index == 0

    def sum_across(self, numbers: Sequence[float]) -> list[float]:
        """The sums of these numbers over all processes."""
        if self.count == 1:
            return list(numbers)
        # MPS has no float64.
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        sums = torch.tensor(numbers, dtype=dtype, device=self.device)
        dist.all_reduce(sums)
        return list(sums.tolist())


@contextlib.contextmanager
def join_processes(device: str | None = None) -> Iterator[Processes]:
    """Join the processes that torchrun started; without torchrun, a single process.

    A process group that exists already is used, and is not destroyed at the end.

    Args:
        device: such as `cpu` or `cuda`; None for an accelerator if available.

    Raises:
        TrainingError: there are more processes on this machine than accelerators; or, inside the
            context, another process died.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1, _device(device, 0))
        return
    own = _device(device, int(os.environ["LOCAL_RANK"]))
    if own.type == "cuda":
        torch.cuda.set_device(own)
    with explain_lost_process():
        starts = not dist.is_initialized()
        if starts:
            dist.init_process_group(None if own.type == "cuda" else "gloo")
        yield Processes(dist.get_rank(), count, own)
        if starts:
            dist.destroy_process_group()  # not after an error: it could wait for a dead process


def _device(device: str | None, local_index: int) -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    try:
        chosen = torch.device(device) if device else found or torch.device("cpu")
    except RuntimeError as error:
        raise TrainingError(
            f"there is no device {device!r}: {error}; name one such as cpu or cuda"
        ) from error
    if chosen.type != "cuda" or (device and ":" in device):
        return chosen
    if local_index >= torch.cuda.device_count():
        raise TrainingError(
            f"process {local_index} of this machine has no GPU: there are "
            f"{torch.cuda.device_count()}; start as many processes with --nproc-per-node"
        )
    return torch.device("cuda", local_index)


@contextlib.contextmanager
def explain_lost_process() -> Iterator[None]:
    """Inside this context, turn the error of a lost process into a `TrainingError`."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"another process of this run died or cannot be reached; its own output says why. "
            f"Continue from the last checkpoint with --resume. ({reason})"
        ) from error
