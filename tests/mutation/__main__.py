"""`python -m tests.mutation`: test a sample of the mutants, or all, and say which survive."""

from __future__ import annotations

import argparse
import difflib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

from tests.mutation.executed_lines import ExecutedLines, executed_lines
from tests.mutation.fork_server import (
    Fork,
    Outcome,
    fork,
    import_what_stays,
    test_mutant,
    wait_for_one,
)
from tests.mutation.mutants import FILES, ROOT, all_mutants, mutated, original, sampled
from tests.mutation.report import report


def main() -> None:
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__)
    parser.add_argument("--mutants", type=int, help="how many to draw; all without it")
    parser.add_argument("--files", nargs="+", type=Path, help="those of the sample in these alone")
    parser.add_argument("--workers", type=int, default=1, help="mutants tested at a time")
    parser.add_argument("--seconds", type=float, default=60, help="of tests for each mutant")
    parser.add_argument("--again", action="store_true", help="test the survivors once more")
    parser.add_argument("--folder", type=Path, default=ROOT / ".mutation", help="what is known")
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    mutants = all_mutants()
    sample = within(sampled(mutants, options.mutants), options.files)
    with use_db(options.folder / "session.sqlite") as session:
        results = known_results(session, mutants)
        again = {name for name, result in results.items() if options.again and not result.is_killed}
        pending = [m for m in sample if m.job_id not in results or m.job_id in again]
        if pending:
            import_what_stays()
            lines = executed_lines(options.folder)
            check_control(pending[0], lines, options.seconds)
            test_all(pending, lines, session, options.workers, options.seconds)
        print(report(mutants, sample, dict(session.results)))


def check_control(mutant: WorkItem, lines: ExecutedLines, seconds: float) -> None:
    """Check that the tests of a mutant pass on the file as it is; else all would seem killed."""
    (mutation,) = mutant.mutations
    control = start(mutation, original(mutation), lines, seconds)
    wait_for_one([control])
    outcome = control.result()
    if outcome.failed:
        raise SystemExit(
            f"the tests of {mutation.module_path} fail without a mutant: {outcome.failed}: "
            f"{outcome.reason}"
        )


def known_results(session: WorkDB, mutants: Sequence[WorkItem]) -> dict[str, WorkResult]:
    """The results of mutants that there still are; the session then holds just today's mutants."""
    names = {mutant.job_id for mutant in mutants}
    results = {name: result for name, result in session.results if name in names}
    if {item.job_id for item in session.work_items} != names:
        session.clear()
        session.add_work_items(mutants)
        for name, result in results.items():
            session.set_result(name, result)
    return results


def within(sample: Sequence[WorkItem], files: Sequence[Path] | None) -> list[WorkItem]:
    """The mutants of some files, named from the repository's root; all where none is named."""
    unknown = sorted(map(str, set(files or ()) - set(map(Path, FILES))))
    if unknown:
        raise SystemExit(f"not among the files that are mutated: {', '.join(unknown)}")
    return [item for item in sample if files is None or item.mutations[0].module_path in files]


def test_all(
    pending: Sequence[WorkItem],
    lines: ExecutedLines,
    session: WorkDB,
    workers: int,
    seconds: float,
) -> None:
    """Keep so many forks busy; every result is in the session as soon as it is known."""
    waiting = iter(pending)
    running: dict[str, tuple[MutationSpec, Fork]] = {}
    done = 0
    while True:
        for mutant in itertools.islice(waiting, workers - len(running)):
            (mutation,) = mutant.mutations
            running[mutant.job_id] = mutation, start(mutation, mutated(mutation), lines, seconds)
        if not running:
            return
        wait_for_one([under_way for _, under_way in running.values()])
        for name in [name for name, (_, one) in running.items() if one.is_over]:
            mutation, ended = running.pop(name)
            result = result_of(mutation, ended.result())
            session.set_result(name, result)
            done += 1
            print(f"{done}/{len(pending)} {told(mutation, result)}", flush=True)


def told(mutation: MutationSpec, result: WorkResult) -> str:
    """One line; for a survivor the difference as well."""
    assert result.test_outcome is not None
    place = f"{mutation.module_path}:{mutation.start_pos[0]} {mutation.operator_name}"
    line = f"{place} {result.test_outcome.value}: {result.output}"
    return line if result.is_killed else f"{line}\n{result.diff}"


def start(mutation: MutationSpec, source: str, lines: ExecutedLines, seconds: float) -> Fork:
    """Run a mutant's tests on a source; it has much more time than they need without the mutant."""
    file = str(mutation.module_path)
    tests = lines.within(lines.tests_of(file, mutation.start_pos[0]), seconds)
    limit = 60 + 4 * sum(map(lines.sum_of, tests.values()))
    return fork(test_mutant, ROOT / file, source, tests, limit=limit)


def result_of(mutation: MutationSpec, outcome: Outcome) -> WorkResult:
    name = str(mutation.module_path)
    return WorkResult(
        worker_outcome=WorkerOutcome.NORMAL,
        test_outcome=TestOutcome.KILLED if outcome.failed else TestOutcome.SURVIVED,
        output=outcome.failed or "no test failed",
        diff="\n".join(difference(original(mutation), mutated(mutation), name)),
    )


def difference(before: str, after: str, name: str) -> Iterator[str]:
    yield from difflib.unified_diff(
        before.splitlines(), after.splitlines(), name, name, lineterm="", n=1
    )


if __name__ == "__main__":
    main()
