"""Which tests execute which lines, and how long each takes: recorded once, in one run of all."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import coverage
import pytest

from tests.mutation.fork_server import Outcome, fork, run_pytest
from tests.mutation.mutants import FILES, ROOT, sources_digest

TEST_FILES = tuple(
    f"tests/test_{name}.py"
    for name in (
        "layout",
        "label_ops",
        "contraction",
        "linear_attention",
        "unplaced",
        "windows",
        "recurrence",
        "rules",
        "hard_operators",
        "missing_rules",
        "custom_rules",
        "error_messages",
        "flattening",
        "golden_counts",
        "replicas",
        "random_architectures",
    )
)
"""Those that prove labels and errors, the nearest ones to the code first."""

RECORDING_LIMIT = 3600.0  # seconds


@dataclass(frozen=True)
class ExecutedLines:
    """seconds: of each test. tests: the tests of each line of each file, by their index."""

    seconds: dict[str, float]
    tests: dict[str, dict[int, list[str]]]

    def tests_of(self, file: str, line: int) -> list[str]:
        """The tests of a line's statement, quick ones first, the test files in turns.

        What runs on import has the tests of the whole file.
        """
        lines = self.tests.get(file, {})
        found = {test for n in statement_lines(file, line) for test in lines.get(n, ())}
        if "" in found:
            found = {test for tests in lines.values() for test in tests}
        by_file: dict[str, list[str]] = defaultdict(list)
        for test in sorted(found - {""}, key=lambda test: (self.seconds[test], test)):
            by_file[test.split("::")[0]].append(test)
        turns = [
            (rank, TEST_FILES.index(name), test)
            for name, tests in by_file.items()
            for rank, test in enumerate(tests)
        ]
        return [test for _, _, test in sorted(turns)]

    def within(self, tests: list[str], seconds: float) -> list[str]:
        """As many tests as take so long together, one at least."""
        chosen, total = [], 0.0
        for test in tests:
            total += self.seconds[test]
            if chosen and total > seconds:
                break
            chosen.append(test)
        return chosen


def statement_lines(file: str, line: int) -> range:
    """The lines of the smallest statement around a line, without the body that it may have."""
    best = range(line, line + 1)
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if not isinstance(node, (ast.stmt, ast.match_case)):
            continue
        body = getattr(node, "body", None)
        first = node.pattern.lineno if isinstance(node, ast.match_case) else node.lineno
        decorators = getattr(node, "decorator_list", [])
        first = min([first, *(decorator.lineno for decorator in decorators)])
        end = getattr(node, "end_lineno", None) or body[-1].end_lineno
        last = max(body[0].lineno - 1, first) if body else end
        if first <= line <= last:
            best = range(first, last + 1)  # walk goes from the outer to the inner ones
    return best


def executed_lines(folder: Path) -> ExecutedLines:
    """What was recorded in the folder, or a new recording if the code has changed since."""
    path = folder / "executed_lines.json"
    digest = sources_digest(_all_sources())
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["digest"] == digest:
            return _read(kept)
    print(f"recording which of {len(TEST_FILES)} files' tests execute which lines", flush=True)
    found = fork(_record, limit=RECORDING_LIMIT)
    found.process.join(0)
    found.connection.poll(RECORDING_LIMIT)
    recorded = found.result()
    if isinstance(recorded, Outcome):
        raise SystemExit(f"the tests fail without a mutant: {recorded.failed}\n{recorded.reason}")
    path.write_text(json.dumps({"digest": digest, **recorded}))
    return _read(json.loads(path.read_text()))


def _all_sources() -> Iterator[Path]:
    for folder in ("labeltrace", "rules", "tests"):
        found = sorted((ROOT / folder).rglob("*.py"))
        yield from (path for path in found if path.parent != Path(__file__).parent)


def _read(recorded: dict[str, dict[str, dict[str, list[int]]]]) -> ExecutedLines:
    seconds: dict[str, float] = recorded["seconds"]  # type: ignore[assignment]
    names = ["", *seconds]
    lines = {
        file: {int(line): [names[index] for index in tests] for line, tests in found.items()}
        for file, found in recorded["lines"].items()
    }
    return ExecutedLines(seconds, lines)


@dataclass
class Recorder:
    """A pytest plugin that gives each test a context of its own."""

    coverage: coverage.Coverage
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    outcome: Outcome | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed and self.outcome is None:
            self.outcome = Outcome(report.nodeid, report.longreprtext)


def _record() -> object:
    files = {str((ROOT / file).resolve()): file for file in FILES}
    measured = coverage.Coverage(data_file=None, include=list(files), config_file=False)
    recorder = Recorder(measured)
    measured.start()
    code = run_pytest(TEST_FILES, recorder)
    measured.stop()
    if code:
        return recorder.outcome or Outcome("(pytest)", f"pytest ended with {code}")
    index = {name: number for number, name in enumerate(["", *recorder.seconds])}
    data = measured.get_data()
    lines = {
        files[path]: {
            line: sorted(index[context] for context in contexts if context in index)
            for line, contexts in data.contexts_by_lineno(path).items()
        }
        for path in data.measured_files()
        if path in files
    }
    return {"seconds": dict(recorder.seconds), "lines": lines}
