"""Which tests execute which lines, and how long each takes: recorded once, new tests later on."""

from __future__ import annotations

import ast
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import coverage
import pytest

from tests.mutation.fork_server import Outcome, fork, run_pytest, wait_for_one
from tests.mutation.mutants import FILES, ROOT, digest

FOLDERS = (
    "layout",
    "flow",
    "index_notation",
    "label_ops",
    "fused_attention",
    "rule_api",
    "rule_helpers",
    "rules",
    "rewrites",
    "tracing",
    "capture",
    "oracles",
    "random_architectures",
)

TEST_FILES = (
    *(
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in sorted((ROOT / "tests" / folder).rglob("test_*.py"))
    ),
    "tests/alignment/test_dropout.py",
    "tests/structure/test_error_messages.py",
    "tests/structure/test_immutable_data.py",
    "tests/structure/test_label_steps.py",
)
"""Those that prove labels and errors."""

HERE = Path(__file__).parent

RECORDING_LIMIT = 7200.0  # seconds


IMPORT = ""
"""Stands for the test that executes what runs on import."""


@dataclass(frozen=True)
class ExecutedLines:
    """What tests do.

    seconds: how long each takes.
    tests: the tests that execute a line, by file and line; line 0 has those that execute some line.
    """

    seconds: dict[str, float]
    tests: dict[str, dict[int, set[str]]]

    def tests_of(self, file: str, line: int) -> list[str]:
        """The tests of a line's statement: quick ones first, with as long for each test file.

        What runs on import has the tests of the whole file, and first those that execute no line
        at all; for a decorator, those come first as well that execute what is decorated.
        """
        lines = self.tests.get(file, {})
        found = {test for n in statement_lines(file, line) for test in lines.get(n, ())}
        if IMPORT in found or 0 in lines:
            found = {test for tests in lines.values() for test in tests} | self.idle
        first = {test for n in decorated_lines(file, line) for test in lines.get(n, ())} | self.idle
        waited: dict[str, float] = defaultdict(float)
        turns: list[tuple[bool, float, str]] = []
        for test in sorted(found - {IMPORT}, key=lambda test: (self.seconds[test], test)):
            test_file = test.split("::")[0]
            waited[test_file] += self.seconds[test]
            turns.append((test not in first, waited[test_file], test))
        return [test for *_, test in sorted(turns)]

    @cached_property
    def idle(self) -> set[str]:
        """The tests that execute no line, such as those that look at classes and tables alone."""
        busy = {t for lines in self.tests.values() for tests in lines.values() for t in tests}
        return set(self.seconds) - busy

    def within(self, tests: Sequence[str], seconds: float) -> dict[str, list[str]]:
        """As many of the first tests as take so long together, by file, the quickest file first."""
        chosen: dict[str, list[str]] = defaultdict(list)
        total = 0.0
        for test in tests:
            if total + self.seconds[test] <= seconds or not chosen:
                chosen[test.split("::")[0]].append(test)
                total += self.seconds[test]
        return dict(sorted(chosen.items(), key=lambda item: self.sum_of(item[1])))

    def sum_of(self, tests: Iterable[str]) -> float:
        """How long tests take together."""
        return sum(self.seconds[test] for test in tests)


def statement_lines(file: str, line: int) -> range:
    """The lines of the smallest statement around a line, without the body that it may have."""
    smallest = range(line, line + 1)
    for node in _syntax(file):
        if isinstance(node, (ast.stmt, ast.match_case)) and line in (lines := _own_lines(node)):
            smallest = lines  # walk goes from the outer to the inner ones
    return smallest


def decorated_lines(file: str, line: int) -> range:
    """The body of the function or class whose decorator stands on a line; empty elsewhere."""
    for node in _syntax(file):
        decorators: list[ast.expr] = getattr(node, "decorator_list", [])
        if any(line in range(one.lineno, (one.end_lineno or 0) + 1) for one in decorators):
            assert isinstance(node, (ast.FunctionDef, ast.ClassDef))
            return range(node.body[0].lineno, (node.end_lineno or 0) + 1)
    return range(0)


def _syntax(file: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))


def _own_lines(node: ast.stmt | ast.match_case) -> range:
    body: list[ast.stmt] = getattr(node, "body", [])
    place = node.pattern if isinstance(node, ast.match_case) else node
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    first = min(part.lineno for part in (place, *decorators))
    last = max(body[0].lineno - 1, first) if body else place.end_lineno or first
    return range(first, last + 1)


def executed_lines(folder: Path) -> ExecutedLines:
    """What was recorded in the folder, and of tests that are new since.

    The lines of a file that has changed since are not told apart any more: all tests that execute
    any of them may execute each. Remove the folder to record everything afresh.
    """
    path = folder / "executed_lines.json"
    known = Recorded(**json.loads(path.read_text())) if path.exists() else Recorded()
    known.forget_changed_lines()
    for name in TEST_FILES:
        if known.tests.get(name) == _test_digest(name):
            continue
        print(f"recording which lines {name} executes", flush=True)
        recording = fork(_record, known, name, limit=RECORDING_LIMIT)
        wait_for_one([recording])
        new = recording.result()
        if isinstance(new, Outcome):
            raise SystemExit(f"a test fails without a mutant: {new.failed}\n{new.reason}")
        known = new
        path.write_text(json.dumps(asdict(known)))
    return known.executed_lines()


def _test_digest(name: str) -> str:
    """A digest of a test file and of all that test files may import."""
    helpers = [path for path in sorted(ROOT.glob("tests/**/*.py")) if path.parent != HERE]
    used = [path for path in helpers if not path.name.startswith("test_")]
    return digest(*(path.read_text(encoding="utf-8") for path in (ROOT / name, *used)))


@dataclass
class Recorded:
    """What is known of tests, as a file holds it.

    seconds: how long each takes; the first entry stands for what runs on import.
    lines: the tests that execute a line, by file and line, as places in ``seconds``.
    sources, tests: digests of the files of both kinds.
    """

    seconds: dict[str, float] = field(default_factory=lambda: {IMPORT: 0.0})
    lines: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    tests: dict[str, str] = field(default_factory=dict)

    def forget_changed_lines(self) -> None:
        for file, lines in self.lines.items():
            now = digest((ROOT / file).read_text(encoding="utf-8"))
            if self.sources.get(file, now) != now:
                self.lines[file] = {
                    "0": sorted({test for tests in lines.values() for test in tests})
                }
            self.sources[file] = now

    def add(self, file: str, line: int, tests: Iterable[str]) -> None:
        """More tests of a line; those that were not run by themselves do not count."""
        places = {test: place for place, test in enumerate(self.seconds)}
        found = self.lines.setdefault(file, {})
        key = str(line)
        new = {places[test] for test in tests if test in places}
        found[key] = sorted(new.union(found.get(key, ())))

    def executed_lines(self) -> ExecutedLines:
        names = list(self.seconds)
        by_line = {
            file: {int(line): {names[place] for place in places} for line, places in lines.items()}
            for file, lines in self.lines.items()
        }
        return ExecutedLines(self.seconds, by_line)


@dataclass(eq=False)  # pytest keeps its plugins in a set
class Recorder:
    """A pytest plugin that runs the tests that are not known yet, each in a context of its own."""

    coverage: coverage.Coverage
    known: Recorded
    outcome: Outcome | None = None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid not in self.known.seconds]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        start = time.process_time()  # the clock would tell how busy the machine is
        try:
            return (yield)
        finally:
            self.known.seconds[item.nodeid] = time.process_time() - start

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.outcome is None:
            self.outcome = Outcome(report.nodeid, report.longreprtext)


def _record(known: Recorded, test_file: str) -> Recorded | Outcome:
    files = {str((ROOT / file).resolve()): file for file in FILES}
    measured = coverage.Coverage(data_file=None, include=list(files), config_file=False)
    recorder = Recorder(measured, known)
    measured.start()
    code = run_pytest([test_file], recorder)
    measured.stop()
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return recorder.outcome or Outcome("(pytest)", f"pytest ended with {code}")
    data = measured.get_data()
    for path in data.measured_files():
        for line, tests in data.contexts_by_lineno(path).items():
            known.add(files[path], line, tests)
    known.forget_changed_lines()  # notes what the files are now
    known.tests[test_file] = _test_digest(test_file)
    return known
