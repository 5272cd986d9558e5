"""The figures of a mutation run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from cosmic_ray.work_item import WorkItem, WorkResult

Z = 1.96  # 95% of a normal distribution lie within so many standard deviations


def report(
    mutants: Sequence[WorkItem], sample: Sequence[WorkItem], results: Mapping[str, WorkResult]
) -> str:
    """Survivors, figures by file, and the share of killed mutants with its interval."""
    tested = [item for item in sample if item.job_id in results]
    killed = [item for item in tested if results[item.job_id].is_killed]
    survivors = [item for item in tested if not results[item.job_id].is_killed]
    of_all, of_tested, of_killed = (
        Counter(str(item.mutations[0].module_path) for item in items)
        for items in (mutants, tested, killed)
    )
    lines = [results[item.job_id].diff or "" for item in survivors]
    lines += [
        f"{file:40} {of_killed[file]:4} killed of {of_tested[file]:4} tested of {count:4}"
        for file, count in of_all.items()
    ]
    if tested:
        low, high = wilson(len(killed), len(tested))
        lines.append(
            f"{len(killed)} killed of {len(tested)} tested of {len(mutants)} mutants:"
            f" {len(killed) / len(tested):.1%}, 95% interval {low:.1%} to {high:.1%}"
        )
    return "\n".join(lines)


def wilson(killed: int, tested: int) -> tuple[float, float]:
    """Wilson's interval of a share (E. B. Wilson, 1927)."""
    share = killed / tested
    center = share + Z**2 / (2 * tested)
    width = Z * math.sqrt(share * (1 - share) / tested + Z**2 / (4 * tested**2))
    scale = 1 + Z**2 / tested
    return (center - width) / scale, (center + width) / scale
