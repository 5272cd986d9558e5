"""What a training step needs in memory at most.

On a GPU all that is allocated; on a processor the largest resident set of a process of its own that
trains for three steps: this file, run with a described case.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from training_step import Case, TrainingStep


def allocated(training: TrainingStep, method: str) -> float:
    """MiB that a step needs at most on the GPU, parameters and moments included."""
    torch.cuda.reset_peak_memory_stats()
    training.step(method)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**20


def resident(case: Case, method: str) -> float:
    """MiB of the largest resident set of a process that trains for three steps."""
    described = json.dumps(asdict(case) | {"method": method, "threads": torch.get_num_threads()})
    command = [sys.executable, __file__, described]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Train one method for three steps, then print the process's largest resident set in MiB."""
    described = json.loads(sys.argv[1])
    method = described.pop("method")
    torch.set_num_threads(described.pop("threads"))
    training = TrainingStep(Case(**described), (method,))
    for _ in range(3):
        training.step(method)
    print(_largest_resident_set())


def _largest_resident_set() -> float:
    """That of this process so far, in MiB.

    Linux hands ``ru_maxrss`` on from the process that started this one, which may be larger.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return float(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, on macOS


if __name__ == "__main__":
    main()
