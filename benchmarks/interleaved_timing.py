"""Jobs that take turns within one run, and what their times say about each other."""

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
    """One job's time over another's, of which each turn gives a ratio: their median and spread.

    standard_error: of the median, as for a normal distribution that has these quartiles.
    """

    median: float
    lower_quartile: float
    upper_quartile: float
    standard_error: float


def ratio(own: Sequence[float], other: Sequence[float]) -> Ratio:
    """The ratio of two jobs' seconds, a number a turn each."""
    ratios = [mine / theirs for mine, theirs in zip(own, other, strict=True)]
    low, high = ratios[0], ratios[0]
    if len(ratios) > 1:
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    deviation = (high - low) / 1.349  # a normal distribution's quartiles are so many apart
    error = math.sqrt(math.pi / 2 / len(ratios)) * deviation
    return Ratio(statistics.median(ratios), low, high, error)


def take_turns(
    jobs: Mapping[str, Callable[[], object]], turn: int, device: str, clock: str, steps: int
) -> dict[str, float]:
    """Seconds of each job, run once, in an order that depends on the turn.

    What a job leaves behind, memory above all, makes the next one quicker or slower.
    """
    order = list(jobs)
    random.Random(turn).shuffle(order)
    found = {name: timed(jobs[name], device, clock, steps) for name in order}
    return {name: found[name] for name in jobs}


def by_job(turns: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """The seconds of each job, a number a turn."""
    return {name: tuple(turn[name] for turn in turns) for name in turns[0]}


def timed(job: Callable[[], object], device: str, clock: str, steps: int) -> float:
    """Seconds that a job takes, of so many times together."""
    now = CLOCKS[clock]
    synchronise(device)
    start = now()
    for _ in range(steps):
        job()
    synchronise(device)
    return (now() - start) / steps


def synchronise(device: str) -> None:
    """Wait for what a device still has to do."""
    if torch.device(device).type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)
