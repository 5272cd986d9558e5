"""The files of a run: what it takes to go on, and the model for others to load."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeltrace.errors import TrainingError
from labeltrace.training.atomic_files import read_tensors, write, write_tensors
from labeltrace.training.history import EpochResult, Record
from labeltrace.training.parallel import whole
from labeltrace.training.recipe import Recipe
from labeltrace.training.sampling import Position
from labeltrace.training.training_state import Machinery

FORMAT = 1
WITHOUT_EFFECT = ("data.workers", "data.folder", "accumulation")  # the fingerprint has the rest


@dataclass(frozen=True)
class Folder:
    """Where a run writes.

    `last.pth` and `best.pth` are state dicts of the plain model, `training_state.pth` is all that
    it takes to go on. The latter is written last: what a kill leaves undone is done again.
    """

    path: Path

    @property
    def state(self) -> Path:
        return self.path / "training_state.pth"

    @property
    def last(self) -> Path:
        return self.path / "last.pth"

    @property
    def best(self) -> Path:
        return self.path / "best.pth"

    @property
    def log(self) -> Path:
        return self.path / "log.csv"

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.json"

    def make(self) -> None:
        """Make the folder.

        Raises:
            TrainingError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(
                f"the folder {self.path} cannot be made: {error.strerror}"
            ) from error


@dataclass(frozen=True)
class Saved:
    """A run as it was saved: its record, and what `Machinery.state` held."""

    record: Record
    state: Mapping[str, Any]


def save(folder: Folder, run: Machinery, record: Record, *, epoch_ended: bool) -> None:
    """Write the state of a run, and at the end of an epoch its models and log.

    All processes must call this together; the first one writes.

    Raises:
        TrainingError: a file cannot be written; those written earlier are as they were.
    """
    loss_sum = run.processes.summed([record.loss_sum])[0] / run.processes.count
    state = whole(run.state())
    if not run.processes.is_first:
        return
    if epoch_ended:
        exported = state["average"] if run.average else state["model"]
        write_tensors(folder.last, exported)
        if record.best == record.epochs[-1]:
            write_tensors(folder.best, exported)
        write(folder.log, record.as_csv().encode())
    document = {
        "format": FORMAT,
        "recipe": run.recipe.to_json(),
        "fingerprint": _fingerprint(run),
        "position": tuple(record.position),
        "loss_sum": loss_sum,
        "epochs": [dataclasses.asdict(epoch) for epoch in record.epochs],
        "state": state,
    }
    write_tensors(folder.state, document)


def read(folder: Folder, recipe: Recipe) -> tuple[Saved, dict[str, Any]]:
    """Read the state of a run of this recipe, and the fingerprint to hold against the run.

    Raises:
        TrainingError: the file cannot be read, or is that of another recipe.
    """
    document = read_tensors(folder.state)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise TrainingError(f"{folder.state} is no state of a run that this version can go on with")
    _check_same(folder, _flat(json.loads(document["recipe"])), _flat(json.loads(recipe.to_json())))
    record = Record(
        Position(*document["position"]),
        document["loss_sum"],
        tuple(EpochResult(**epoch) for epoch in document["epochs"]),
    )
    return Saved(record, document["state"]), document["fingerprint"]


def check_fingerprint(folder: Folder, run: Machinery, fingerprint: Mapping[str, Any]) -> None:
    """Check that the data and the parts of a batch are those of the saved run.

    Raises:
        TrainingError: they are not.
    """
    _check_same(folder, fingerprint, _fingerprint(run))


def _fingerprint(run: Machinery) -> dict[str, Any]:
    return {
        "training images": run.sampling.samples,
        "classes": list(run.images.classes),
        "parts of a batch (processes times accumulation)": run.sampling.parts,
    }


def _check_same(folder: Folder, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differing = [
        f"{name}: {old.get(name)!r} then, {new.get(name)!r} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in WITHOUT_EFFECT
    ]
    if differing:
        raise TrainingError(
            f"the run in {folder.path} is another one; go on with its own settings, or give a new "
            f"folder with --output. Differing: {'; '.join(differing)}"
        )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat
