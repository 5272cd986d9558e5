"""Interleaved timing: several jobs run in turns in one process, and their times are compared."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Ratio:
    """The time of one job divided by another's: median and quartiles over the turns.

    `standard_error` is that of the median, for a normal distribution with these quartiles.
    """

    median: float
    lower_quartile: float
    upper_quartile: float
    standard_error: float


def ratio(own: Sequence[float], other: Sequence[float]) -> Ratio:
    """The ratio of two jobs' seconds; each has one number for each turn."""
    ratios = [seconds / base for seconds, base in zip(own, other, strict=True)]
    low, high = ratios[0], ratios[0]
    if len(ratios) > 1:
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    deviation = (high - low) / 1.349  # the interquartile range of a normal distribution
    error = math.sqrt(math.pi / 2 / len(ratios)) * deviation
    return Ratio(statistics.median(ratios), low, high, error)


def time_round(
    jobs: Mapping[str, Callable[[], object]], turn: int, device: str, clock: str, steps: int
) -> dict[str, float]:
    """Seconds of each job in one turn, in an order that depends on the turn.

    The order varies because a job affects the time of the next one, mostly by the memory it frees.
    """
    order = list(jobs)
    random.Random(turn).shuffle(order)
    found = {name: time_job(jobs[name], device, clock, steps) for name in order}
    return {name: found[name] for name in jobs}


def seconds_by_job(turns: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """The seconds of each job, one number for each turn."""
    return {name: tuple(turn[name] for turn in turns) for name in turns[0]}


def time_job(job: Callable[[], object], device: str, clock: str, steps: int) -> float:
    """Seconds of a job: the mean of `steps` runs that are timed together."""
    now = CLOCKS[clock]
    synchronize(device)
    start = now()
    for _ in range(steps):
        job()
    synchronize(device)
    return (now() - start) / steps


def synchronize(device: str) -> None:
    """Wait until a device has finished all work."""
    if torch.device(device).type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)
