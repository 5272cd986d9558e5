"""What torch allocates for a job at most."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from turns import synchronise


def peak_memory(job: Callable[[], object], device: str) -> float:
    """MiB that are allocated at once, beyond what was before; what the job returns included.

    It does not depend on chance as the process's resident set does, in which what has been freed
    may still be.
    """
    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        job()
        synchronise(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    gc.collect()  # what another job left behind must not be freed during this one
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        job()
    events = recorded.profiler.kineto_results.events()
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most / 2**20
