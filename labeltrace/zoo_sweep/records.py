"""Tasks, their outcomes, and the file of JSON lines that stores them."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

from labeltrace.errors import RecordsError
from labeltrace.version import __version__

PACKAGE = Path(__file__).parents[1]
# With other versions of these libraries, the models are others.
MODEL_LIBRARIES = ("torch", "torchvision", "timm")


class Check(StrEnum):
    """The kind of check: only the graph of a model, or a real model with numbers."""

    STRUCTURAL = "structural"
    NUMERIC = "numeric"


class Status(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Task:
    """One check of one model.

    Attributes:
        family: name of the model's family.
        model: name of the model for `labeltrace.models_zoo.load`.
        check: the kind of check.
        image_size: height and width of the images; None for the model's default.
    """

    family: str
    model: str
    check: Check = Check.STRUCTURAL
    image_size: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a task.

    Attributes:
        task: the task.
        status: how it ended.
        error: why it did not pass; empty if it passed.
        findings: the result of the check; see `labeltrace.zoo_sweep.checks`.
        versions: versions of the libraries.
    """

    task: Task
    status: Status
    error: str = ""
    findings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.status is Status.PASSED

    @property
    def first_line(self) -> str:
        """The status, and the first informative line of the error."""
        lines = [line.strip() for line in self.error.splitlines() if line.strip()]
        if len(lines) > 1 and lines[0].endswith(":"):
            lines = [f"{lines[0]} {lines[1]}"]
        return f"{self.status}: {lines[0]}" if lines else str(self.status)

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Outcome:
        """The outcome in a line of JSON.

        Raises:
            ValueError: the line is no outcome.
        """
        try:
            entry = json.loads(line)
            task = Task(**{**entry["task"], "check": Check(entry["task"]["check"])})
            return cls(**{**entry, "task": task, "status": Status(entry["status"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"no result of a sweep: {error}") from error


def versions() -> dict[str, str]:
    """The versions that a result depends on; labeltrace's includes a digest of its source."""
    return {
        "labeltrace": f"{__version__} (source {_source_digest()})",
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }


def same_libraries(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether the libraries define the same models; builds for other devices (`+cu132`) do.

    If a version is missing, the answer is no.
    """
    return all(
        name in one
        and name in other
        and one[name].partition("+")[0] == other[name].partition("+")[0]
        for name in MODEL_LIBRARIES
    )


def _source_digest() -> str:
    """Twelve hexadecimal digits that change with any line of the package's code."""
    digest = hashlib.sha256()
    files = {*PACKAGE.rglob("*.py"), *PACKAGE.glob("rules/*.py")}  # rglob does not follow links
    for file in sorted(files):
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


# The file. ----------------------------------------------------------------------------------------


def read(file: Path) -> list[Outcome]:
    """The outcomes in a file; none if there is no file. An incomplete last line is ignored.

    Raises:
        RecordsError: another line is no outcome.
    """
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    outcomes: list[Outcome] = []
    for number, line in enumerate(lines, 1):
        try:
            outcomes.append(Outcome.from_line(line))
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise RecordsError(
                f"{file}:{number}: {error}; name another file with --results, or delete this one"
            ) from error
    return outcomes


def write(file: Path, outcomes: Iterable[Outcome]) -> None:
    """Write the whole file atomically: after an interruption, it is the old or the new file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".new")
    temporary.write_text("".join(outcome.to_line() for outcome in outcomes), encoding="utf-8")
    temporary.replace(file)


def append(file: Path, outcome: Outcome) -> None:
    """Append one line."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(outcome.to_line())


def passed_with(outcomes: Iterable[Outcome], current: Mapping[str, str]) -> list[Outcome]:
    """The outcomes that passed with the same model libraries; a sweep need not repeat them."""
    return [
        outcome
        for outcome in outcomes
        if outcome.passed and same_libraries(outcome.versions, current)
    ]


def unfinished(tasks: Iterable[Task], done: Iterable[Outcome]) -> list[Task]:
    """The tasks without an outcome."""
    finished = {outcome.task for outcome in done}
    return [task for task in tasks if task not in finished]
