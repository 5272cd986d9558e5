"""The tasks of a sweep, and the expected counts that its results are compared with."""

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

    Numbers are checked for the families `numeric`, only on the smallest member, with the
    smallest images that it accepts.
    """
    tasks: list[Task] = []
    for family in families:
        members = family.members if all_members else (family.smallest,)
        tasks.extend(Task(family.name, member) for member in members)
        if family in numeric:
            size = family.sizes.smallest
            tasks.append(Task(family.name, family.smallest, Check.NUMERIC, size))
    return tasks


def select_for_day(families: Sequence[Family], count: int, day: int) -> tuple[Family, ...]:
    """`count` of the families, others every day: after a few days all have been selected.

    `day` is the number of a day, such as `datetime.date.toordinal`.
    """
    first = day * count % len(families)
    return (*families[first:], *families[:first])[:count]


def compare_with_expected(outcome: Outcome) -> Outcome:
    """The outcome; failed if its counts differ from those recorded with the same libraries."""
    family = find(outcome.task.family)
    if not (outcome.passed and family and _has_expected_counts(family, outcome)):
        return outcome
    differences = [
        f"{name} were {dict(getattr(family, name))}, now {outcome.findings[name]}"
        for name in EXPECTED
        if dict(getattr(family, name)) != outcome.findings[name]
    ]
    if not differences:
        return outcome
    error = "; ".join(differences) + "; if the new counts are correct, record them with --record"
    return replace(outcome, status=Status.FAILED, error=error)


def _has_expected_counts(family: Family, outcome: Outcome) -> bool:
    same = same_libraries(family.measured_with, outcome.versions)
    return same and outcome.task == Task(family.name, family.smallest)


def record(file: Path, outcomes: Iterable[Outcome]) -> None:
    """Write the counts and approximations of smallest members to `measured.json`.

    Entries of other families are kept if they were measured with the same libraries.
    """
    passed = [outcome for outcome in outcomes if outcome.passed and _is_smallest_member(outcome)]
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


def _is_smallest_member(outcome: Outcome) -> bool:
    family = find(outcome.task.family)
    return family is not None and outcome.task == Task(family.name, family.smallest)
