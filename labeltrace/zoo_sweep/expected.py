"""What is to be checked of which family, and what a sweep expects to find there again."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from labeltrace.models_zoo import Family, find
from labeltrace.zoo_sweep.records import (
    MODEL_LIBRARIES,
    Check,
    Outcome,
    Status,
    Task,
    same_libraries,
)

EXPECTED = ("counts", "approximations")


def plan(
    families: Iterable[Family], *, all_members: bool, numeric: Collection[Family]
) -> list[Task]:
    """The tasks of a sweep: the smallest member of each family, or all of them.

    Numbers are checked for the families `numeric`, on the smallest member alone, with the
    smallest images that it takes.
    """
    tasks: list[Task] = []
    for family in families:
        members = family.members if all_members else (family.smallest,)
        tasks.extend(Task(family.name, member) for member in members)
        if family in numeric:
            size = family.sizes.smallest
            tasks.append(Task(family.name, family.smallest, Check.NUMERIC, size))
    return tasks


def rotating(families: Sequence[Family], count: int, day: int) -> tuple[Family, ...]:
    """`count` of the families, the next ones each day: within a few days it is the turn of all.

    `day` is the number of any day, such as `datetime.date.toordinal`.
    """
    first = day * count % len(families)
    return (*families[first:], *families[:first])[:count]


def judged(outcome: Outcome) -> Outcome:
    """The outcome, failed where the counts are not those recorded with the same libraries."""
    family = find(outcome.task.family)
    if not (outcome.passed and family and _is_recorded_of(family, outcome)):
        return outcome
    differences = [
        f"{name} were {dict(getattr(family, name))}, now {outcome.findings[name]}"
        for name in EXPECTED
        if dict(getattr(family, name)) != outcome.findings[name]
    ]
    if not differences:
        return outcome
    error = "; ".join(differences) + "; if that is right, record it with --record"
    return replace(outcome, status=Status.FAILED, error=error)


def _is_recorded_of(family: Family, outcome: Outcome) -> bool:
    same = same_libraries(family.measured_with, outcome.versions)
    return same and outcome.task == Task(family.name, family.smallest)


def record(file: Path, outcomes: Iterable[Outcome]) -> None:
    """Put the counts and approximations of smallest members into `measured.json`.

    Those of families that are not among the outcomes stay, if they were measured with the same
    libraries.
    """
    passed = [outcome for outcome in outcomes if outcome.passed and _is_of_a_smallest(outcome)]
    if not passed:
        return
    libraries = {name: passed[-1].versions[name] for name in MODEL_LIBRARIES}
    known = json.loads(file.read_text(encoding="utf-8"))
    members: dict[str, Any] = (
        known["members"] if same_libraries(known["versions"], libraries) else {}
    )
    for outcome in passed:
        members[outcome.task.model] = {name: outcome.findings[name] for name in EXPECTED}
    document = {"versions": libraries, "members": dict(sorted(members.items()))}
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_of_a_smallest(outcome: Outcome) -> bool:
    family = find(outcome.task.family)
    return family is not None and outcome.task == Task(family.name, family.smallest)
