"""`python -m tests.mutation`: test a sample of the mutants, or all, and say which survive."""

from __future__ import annotations

import argparse
import difflib
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

from tests.mutation.executed_lines import ExecutedLines, executed_lines
from tests.mutation.fork_server import Fork, Outcome, fork, import_what_stays, test_mutant
from tests.mutation.mutants import ROOT, all_mutants, mutated, sampled
from tests.mutation.report import report


def main() -> None:
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__)
    parser.add_argument("--mutants", type=int, help="how many to draw; all without it")
    parser.add_argument("--workers", type=int, default=1, help="mutants tested at a time")
    parser.add_argument("--seconds", type=float, default=60, help="of tests for each mutant")
    parser.add_argument("--again", action="store_true", help="test the survivors once more")
    parser.add_argument("--folder", type=Path, default=ROOT / ".mutation", help="what is known")
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    mutants = all_mutants()
    sample = sampled(mutants, options.mutants)
    with use_db(options.folder / "session.sqlite") as session:
        results = known_results(session, mutants)
        again = {name for name, result in results.items() if options.again and not result.is_killed}
        pending = [m for m in sample if m.job_id not in results or m.job_id in again]
        if pending:
            import_what_stays()
            lines = executed_lines(options.folder)
            test_all(pending, lines, session, options.workers, options.seconds)
        print(report(mutants, sample, dict(session.results)))


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


def test_all(
    pending: Sequence[WorkItem],
    lines: ExecutedLines,
    session: WorkDB,
    workers: int,
    seconds: float,
) -> None:
    """Keep so many forks busy; every result is in the session as soon as it is known."""
    waiting, running = iter(pending), dict[str, tuple[WorkItem, Fork]]()
    done = 0
    while True:
        while len(running) < workers and (mutant := next(waiting, None)):
            tests = tests_for(mutant.mutations[0], lines, seconds)
            running[mutant.job_id] = mutant, start(mutant.mutations[0], tests, lines)
        if not running:
            return
        forks = [fork for _, fork in running.values()]
        patience = min(fork.deadline for fork in forks) - time.monotonic()
        wait([fork.connection for fork in forks], timeout=max(patience, 0))
        for name, (mutant, under_way) in list(running.items()):
            late = time.monotonic() >= under_way.deadline
            if not (late or under_way.connection.poll(0) or not under_way.process.is_alive()):
                continue
            result = result_of(mutant.mutations[0], under_way.result())
            session.set_result(name, result)
            del running[name]
            done += 1
            if not result.is_killed:
                print(result.diff, flush=True)
            place = mutant.mutations[0]
            print(
                f"{done}/{len(pending)} {place.module_path}:{place.start_pos[0]}"
                f" {place.operator_name} {result.test_outcome.value}: {result.output}",
                flush=True,
            )


def tests_for(mutation: MutationSpec, lines: ExecutedLines, seconds: float) -> dict[str, list[str]]:
    found = lines.tests_of(str(mutation.module_path), mutation.start_pos[0])
    return lines.within(found, seconds)


def start(mutation: MutationSpec, tests: Mapping[str, Sequence[str]], lines: ExecutedLines) -> Fork:
    """Test a mutant; it has much more time than its tests need without it."""
    limit = 60 + 4 * sum(map(lines.sum_of, tests.values()))
    file = ROOT / mutation.module_path
    return fork(test_mutant, file, mutated(mutation), tests, limit=limit)


def result_of(mutation: MutationSpec, outcome: Outcome) -> WorkResult:
    source = (ROOT / mutation.module_path).read_text(encoding="utf-8")
    return WorkResult(
        worker_outcome=WorkerOutcome.NORMAL,
        test_outcome=TestOutcome.KILLED if outcome.failed else TestOutcome.SURVIVED,
        output=outcome.failed or "no test failed",
        diff="\n".join(difference(source, mutated(mutation), str(mutation.module_path))),
    )


def difference(before: str, after: str, name: str) -> Iterator[str]:
    yield from difflib.unified_diff(
        before.splitlines(), after.splitlines(), name, name, lineterm="", n=1
    )


if __name__ == "__main__":
    main()
