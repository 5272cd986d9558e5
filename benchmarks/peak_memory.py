"""The peak memory that torch allocates for a job."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from interleaved_timing import synchronize
from torch.profiler import ProfilerActivity, profile


def peak_memory(job: Callable[[], object], device: str) -> float:
    """Peak MiB allocated by a job, including its result, without what was allocated before.

    Unlike the resident set of the process, it does not include freed memory, so it is reproducible.
    """
    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        job()
        synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    gc.collect()  # so that garbage of another job is not freed during this one
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        job()
    events = recorded.profiler.kineto_results.events()
    current = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            current += event.nbytes()
            peak = max(peak, current)
    return peak / 2**20
