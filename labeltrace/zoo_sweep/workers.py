"""Processes that check one model after the other, and are replaced when they die.

Importing torch and timm takes longer than checking a small model, so a worker stays for many.
Whatever a model does to its worker (a crash, no end, all memory) is an outcome like any other.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import IO, Any

from labeltrace.errors import LabelTraceError, UnknownOperatorError, WorkerError
from labeltrace.zoo_sweep.records import Outcome, Status, Task, versions

START_SECONDS = 300.0  # for importing torch and timm, on a busy machine
TASKS_OF_A_WORKER = 50  # what exports leave behind in memory goes with the process
GIBIBYTE = 2**30
OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", "out of memory", "Cannot allocate memory")
READY = "ready"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one model may take.

    Attributes:
        seconds: wall time; the worker is killed then.
        gibibytes: memory on top of what a worker takes with all libraries loaded; enforced where
            the system can do so (Linux).
    """

    seconds: float = 300.0
    gibibytes: float = 8.0


def run(tasks: Iterable[Task], jobs: int = 1, limits: Limits | None = None) -> Iterator[Outcome]:
    """Check models in `jobs` processes at once; outcomes come as they are finished.

    Raises:
        WorkerError: a new process ends before it is ready.
    """
    limits = limits or Limits()
    waiting = deque(tasks)
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.task for worker in workers):
            workers = [worker for worker in workers if worker.usable]
            idle = [worker for worker in workers if worker.task is None]
            for _ in range(min(jobs - len(workers), len(waiting) - len(idle))):
                workers.append(_Worker(limits))
                idle.append(workers[-1])
            for worker in idle[: len(waiting)]:
                if worker.give(waiting[0]):
                    waiting.popleft()
            busy = [worker for worker in workers if worker.task]
            if busy:
                yield from _finished(busy)
    finally:
        for worker in workers:
            worker.stop()


def _context() -> Any:
    """Where a new process comes from: a fork of one that has imported all and done nothing.

    A fork of this process would not do, since torch's threads do not survive one.  Elsewhere than
    on Linux a new process imports everything itself.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["labeltrace.zoo_sweep.checks"])
    return context


def _finished(workers: list[_Worker]) -> Iterator[Outcome]:
    """Wait until something happens; the outcomes of those that are done."""
    patience = min(worker.deadline for worker in workers) - time.monotonic()
    connections = [worker.connection for worker in workers]
    ready = multiprocessing.connection.wait(connections, max(patience, 0.0))
    for worker in workers:
        if worker.connection in ready:
            outcome = worker.receive()
        elif time.monotonic() >= worker.deadline:
            outcome = worker.give_up()
        else:
            outcome = None
        if outcome is not None:
            yield outcome


class _Worker:
    """One process, seen from outside; it has at most one task."""

    def __init__(self, limits: Limits) -> None:
        context = _context()
        self.limits = limits
        self.task: Task | None = None
        self.ready = False
        self.usable = True
        self.tasks = 0
        self.deadline = time.monotonic() + START_SECONDS
        # Closed, and thereby deleted, where the process is stopped.
        self.log: IO[bytes] = tempfile.NamedTemporaryFile(prefix="labeltrace-zoo-")  # noqa: SIM115
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, limits.gibibytes, self.log.name), daemon=True
        )
        self.process.start()
        theirs.close()  # so that its end is ours to see

    def give(self, task: Task) -> bool:
        """Hand a task over, whose time begins when the process is ready; False if it has ended."""
        self.log.truncate(0)
        try:
            self.connection.send(task)
        except OSError:
            if not self.ready:
                raise WorkerError(self._how_it_ended("before it was ready")) from None
            self.stop()
            return False
        self.task = task
        self.tasks += 1
        if self.ready:
            self.deadline = time.monotonic() + self.limits.seconds
        return True

    def receive(self) -> Outcome | None:
        """What the process has to say: that it is ready, an outcome, or nothing any more."""
        try:
            said = self.connection.recv()
        except (EOFError, ConnectionError):
            return self._died()
        if said == READY:
            self.ready = True
            self.deadline = time.monotonic() + self.limits.seconds
            return None
        outcome: Outcome = said
        self.task = None
        if outcome.status is Status.OUT_OF_MEMORY or self.tasks >= TASKS_OF_A_WORKER:
            self.stop()
        return outcome

    def give_up(self) -> Outcome:
        """Kill the process, whose time is over."""
        if not self.ready:
            raise WorkerError(f"no worker after {START_SECONDS:g} s{self._last_words()}")
        error = f"not finished after {self.limits.seconds:g} s"
        return self._ended(Status.TIMED_OUT, error)

    def _died(self) -> Outcome:
        if not self.ready:
            raise WorkerError(self._how_it_ended("before it was ready"))
        return self._ended(Status.CRASHED, self._how_it_ended("at this model"))

    def _how_it_ended(self, when: str) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the process ended {when}, with {how}{self._last_words()}"

    def _ended(self, status: Status, error: str) -> Outcome:
        task = self.task
        assert task is not None
        self.task = None
        self.stop()
        return Outcome(task, status, error, versions=versions())

    def _last_words(self) -> str:
        """What the process wrote last on its error stream, such as where it crashed."""
        with open(self.log.name, "rb") as stream:
            written = stream.read().decode(errors="replace").strip()
        return f"\n{written[-4000:]}" if written else ""

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.usable = False
        self.process.kill()
        self.process.join()
        self.connection.close()
        self.log.close()


# Inside the process. ------------------------------------------------------------------------------


def _serve(connection: Connection, gibibytes: float, log: str) -> None:
    """Check one model after the other until nobody asks any more."""
    _write_to(log)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent alone answers to the keyboard
    import torch

    from labeltrace.zoo_sweep.checks import CHECKS

    torch.set_num_threads(1)  # one model a process: the processes share the machine
    warnings.simplefilter("ignore")
    _limit_memory(gibibytes)
    now = versions()
    connection.send(READY)
    while True:
        try:
            task: Task = connection.recv()
        except EOFError:
            return
        connection.send(_checked(task, CHECKS[task.check], now))


def _checked(task: Task, check: Any, now: Mapping[str, str]) -> Outcome:
    try:
        return Outcome(task, Status.PASSED, findings=check(task), versions=now)
    except Exception as error:  # a model of anybody's may raise anything, and that is the finding
        status = Status.OUT_OF_MEMORY if _is_out_of_memory(error) else Status.FAILED
        known = isinstance(error, LabelTraceError)
        text = str(error) if known else "".join(traceback.format_exception_only(error))
        operators = error.operators if isinstance(error, UnknownOperatorError) else ()
        findings = {"unknown_operators": list(operators)} if operators else {}
        return Outcome(task, status, text.strip(), findings, now)


def _is_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def _limit_memory(gibibytes: float) -> None:
    """Let allocations fail beyond this much more address space than the process has now."""
    if sys.platform == "linux":
        import resource

        with open("/proc/self/statm", encoding="ascii") as stream:
            pages = int(stream.read().split()[0])
        limit = pages * resource.getpagesize() + int(gibibytes * GIBIBYTE)
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _write_to(log: str) -> None:
    """Let both output streams, those of C code too, end in a file and not across the table."""
    stream = os.open(log, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(stream, descriptor)
