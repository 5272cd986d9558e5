"""Processes that check one model after another, and are replaced when they die.

Importing torch and timm takes longer than checking a small model, so each worker checks many
models. A model that crashes its worker, never ends or exhausts memory has an outcome like others.
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
TASKS_PER_WORKER = 50  # exports leak memory, which is freed with the process
GIBIBYTE = 2**30
OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", "out of memory", "Cannot allocate memory")
READY = "ready"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for one model.

    Attributes:
        seconds: wall time, after which the worker is killed.
        gibibytes: memory in addition to that of a worker with all libraries loaded; enforced on
            Linux only.
    """

    seconds: float = 300.0
    gibibytes: float = 8.0


def run(tasks: Iterable[Task], jobs: int = 1, limits: Limits | None = None) -> Iterator[Outcome]:
    """Check models in `jobs` parallel processes; outcomes are yielded as they finish.

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
                if worker.assign(waiting[0]):
                    waiting.popleft()
            busy = [worker for worker in workers if worker.task]
            if busy:
                yield from _wait_for_outcomes(busy)
    finally:
        for worker in workers:
            worker.stop()


def _process_context() -> Any:
    """The context for new processes: on Linux, forks of a process that has only imported modules.

    Forks of this process would lose torch's threads. On other systems a new process imports
    everything itself.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["labeltrace.zoo_sweep.checks"])
    return context


def _wait_for_outcomes(workers: list[_Worker]) -> Iterator[Outcome]:
    """Wait for a message or a deadline, and yield the outcomes of finished tasks."""
    patience = min(worker.deadline for worker in workers) - time.monotonic()
    connections = [worker.connection for worker in workers]
    ready = multiprocessing.connection.wait(connections, max(patience, 0.0))
    for worker in workers:
        if worker.connection in ready:
            outcome = worker.receive()
        elif time.monotonic() >= worker.deadline:
            outcome = worker.time_out()
        else:
            outcome = None
        if outcome is not None:
            yield outcome


class _Worker:
    """The parent's view of one process; it has at most one task."""

    def __init__(self, limits: Limits) -> None:
        context = _process_context()
        self.limits = limits
        self.task: Task | None = None
        self.ready = False
        self.usable = True
        self.tasks = 0
        self.deadline = time.monotonic() + START_SECONDS
        # Closed, and thereby deleted, in `stop`.
        self.log: IO[bytes] = tempfile.NamedTemporaryFile(prefix="labeltrace-zoo-")  # noqa: SIM115
        self.connection, worker_end = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(worker_end, limits.gibibytes, self.log.name), daemon=True
        )
        self.process.start()
        worker_end.close()  # so that this process notices when the worker ends

    def assign(self, task: Task) -> bool:
        """Send a task to the process; False if the process has ended."""
        self.log.truncate(0)
        try:
            self.connection.send(task)
        except OSError:
            if not self.ready:
                raise WorkerError(self._describe_end("before it was ready")) from None
            self.stop()
            return False
        self.task = task
        self.tasks += 1
        if self.ready:
            self.deadline = time.monotonic() + self.limits.seconds
        return True

    def receive(self) -> Outcome | None:
        """Handle a message of the process, or its end; return the outcome, if there is one."""
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionError):
            return self._died()
        if message == READY:
            self.ready = True
            self.deadline = time.monotonic() + self.limits.seconds
            return None
        outcome: Outcome = message
        self.task = None
        if outcome.status is Status.OUT_OF_MEMORY or self.tasks >= TASKS_PER_WORKER:
            self.stop()
        return outcome

    def time_out(self) -> Outcome:
        """Kill the process after its deadline."""
        if not self.ready:
            raise WorkerError(
                f"no worker is ready after {START_SECONDS:g} s; run fewer jobs at once"
                f"{self._last_output()}"
            )
        error = f"not finished after {self.limits.seconds:g} s"
        return self._fail_task(Status.TIMED_OUT, error)

    def _died(self) -> Outcome:
        if not self.ready:
            raise WorkerError(self._describe_end("before it was ready"))
        return self._fail_task(Status.CRASHED, self._describe_end("at this model"))

    def _describe_end(self, when: str) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the process ended {when}, with {how}{self._last_output()}"

    def _fail_task(self, status: Status, error: str) -> Outcome:
        task = self.task
        assert task is not None
        self.task = None
        self.stop()
        return Outcome(task, status, error, versions=versions())

    def _last_output(self) -> str:
        """The end of the process's error stream, such as the place of a crash."""
        with open(self.log.name, "rb") as stream:
            written = stream.read().decode(errors="replace").strip()
        return f"\n{written[-4000:]}" if written else ""

    def stop(self) -> None:
        """Kill the process."""
        self.usable = False
        self.process.kill()
        self.process.join()
        self.connection.close()
        self.log.close()


# Inside the worker process. -----------------------------------------------------------------------


def _serve(connection: Connection, gibibytes: float, log: str) -> None:
    """Check one model after another until the connection is closed."""
    _redirect_output(log)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent handles Ctrl-C
    import torch

    from labeltrace.zoo_sweep.checks import CHECKS

    torch.set_num_threads(1)  # the processes share the machine
    warnings.simplefilter("ignore")
    _limit_memory(gibibytes)
    now = versions()
    connection.send(READY)
    while True:
        try:
            task: Task = connection.recv()
        except EOFError:
            return
        connection.send(_check(task, CHECKS[task.check], now))


def _check(task: Task, check: Any, now: Mapping[str, str]) -> Outcome:
    try:
        return Outcome(task, Status.PASSED, findings=check(task), versions=now)
    except Exception as error:  # any error of a model is the result of its check
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
    """Limit the address space of the process to its current size plus this much."""
    if sys.platform == "linux":
        import resource

        with open("/proc/self/statm", encoding="ascii") as stream:
            pages = int(stream.read().split()[0])
        limit = pages * resource.getpagesize() + int(gibibytes * GIBIBYTE)
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _redirect_output(log: str) -> None:
    """Redirect both output streams, including those of C code, to a file."""
    stream = os.open(log, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(stream, descriptor)
