"""Tests run in forks of a process that has imported everything but labeltrace.

A mutant is never written to disk: the fork that tests it compiles the changed source in the file's
place. So the working tree is untouched, and a mutant costs its tests instead of PyTorch's import.
"""

from __future__ import annotations

import importlib.machinery
import math
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import CodeType
from typing import Any

import hypothesis
import pytest

CONTEXT = multiprocessing.get_context("fork")


def import_what_stays() -> None:
    """Import and warm up what all forks share; labeltrace is not part of it."""
    import networkx  # noqa: F401
    import rich.table  # noqa: F401
    import safetensors  # noqa: F401
    import timm  # noqa: F401
    import torch
    import torchvision  # noqa: F401
    from torch.export import Dim, export

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    torch.set_num_threads(1)
    layer, x = torch.nn.Conv2d(2, 3, 2), torch.zeros(5, 2, 7, 7)
    export(layer, (x,), strict=False, dynamic_shapes=({0: Dim.DYNAMIC},))
    # Failing examples are enough; they need not be small ones.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutation", phases=phases, database=None, derandomize=True)
    hypothesis.settings.load_profile("mutation")
    assert "labeltrace" not in sys.modules


@dataclass(frozen=True)
class Outcome:
    """What became of some tests: the first that failed, if one did, and why."""

    failed: str | None = None
    reason: str = ""


@dataclass
class Fork:
    """A fork under way, and when it is given up, should it hang."""

    process: ForkProcess
    connection: Connection
    deadline: float

    @property
    def is_over(self) -> bool:
        """Whether it has sent its result, died or run out of time."""
        late = time.monotonic() >= self.deadline
        return late or self.connection.poll(0) or not self.process.is_alive()

    def result(self) -> Any:
        """What the fork sent; an `Outcome` that says so if it died or was out of time."""
        try:
            if self.connection.poll(0):
                return self.connection.recv()
            return Outcome("(died)" if not self.process.is_alive() else "(out of time)")
        except EOFError:
            return Outcome("(died)")
        finally:
            self.process.kill()
            self.process.join()
            self.connection.close()


def wait_for_one(forks: Sequence[Fork]) -> None:
    """Return once one of them is over."""
    patience = min(fork.deadline for fork in forks) - time.monotonic()
    wait([fork.connection for fork in forks], timeout=max(patience, 0))


def fork(function: Callable[..., object], *arguments: object, limit: float) -> Fork:
    """Call a function in a fork; what it returns comes back through `Fork.result`.

    It dies after ``limit`` seconds of its own processor time, however busy the machine is.
    """
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_send, args=(sender, function, arguments, limit))
    process.start()
    sender.close()
    return Fork(process, receiver, time.monotonic() + PATIENCE * limit)


PATIENCE = 20
"""A fork that takes so many times its limit on the clock is hanging."""


def _send(
    sender: Connection, function: Callable[..., object], arguments: Sequence[object], limit: float
) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit)))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    sender.send(function(*arguments))


def use_source(file: Path, source: str) -> None:
    """From now on in this process, importing the file compiles this source."""
    original = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: importlib.machinery.SourceFileLoader, fullname: str) -> CodeType | None:
        if os.path.realpath(self.path) == os.path.realpath(file):
            return compile(source, self.path, "exec", dont_inherit=True)
        return original(self, fullname)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


@dataclass(eq=False)  # pytest keeps its plugins in a set
class Chosen:
    """A pytest plugin: run these tests, in this order, and keep the first failure."""

    tests: Sequence[str]
    outcome: Outcome = field(default_factory=Outcome)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        order = {test: rank for rank, test in enumerate(self.tests)}
        chosen = (item for item in items if item.nodeid in order)
        items[:] = sorted(chosen, key=lambda item: order[item.nodeid])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._keep(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._keep(report)

    def _keep(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if report.failed and self.outcome.failed is None:
            self.outcome = Outcome(report.nodeid, report.longreprtext[-2000:])


def run_pytest(arguments: Sequence[str], plugin: object) -> int:
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *arguments], plugins=[plugin]))


def test_mutant(file: Path, source: str, tests: Mapping[str, Sequence[str]]) -> Outcome:
    """Run tests, by file and name, on a changed source: to be called in a fork of its own."""
    use_source(file, source)
    for test_file, names in tests.items():
        chosen = Chosen(names)
        code = run_pytest([test_file], chosen)
        if chosen.outcome.failed is not None:
            return chosen.outcome
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return Outcome("(pytest)", f"pytest ended with {code}")
    return Outcome()
