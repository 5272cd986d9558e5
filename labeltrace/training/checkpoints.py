"""The files of a run: the state to resume from, and the model for other programs to load."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeltrace.errors import TrainingError
from labeltrace.training.atomic_files import read_tensors, write_file, write_tensors
from labeltrace.training.history import EpochResult, History
from labeltrace.training.parallel import gather
from labeltrace.training.recipe import Recipe
from labeltrace.training.sampling import Position
from labeltrace.training.setup import TrainingSetup
from labeltrace.training.training_state import TrainingState

FORMAT = 1
# Settings that may differ when a run is resumed; `_fingerprint` checks what matters about them.
NO_EFFECT_ON_RESULT = ("data.workers", "data.folder", "accumulation")


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    `last.pth` and `best.pth` are state dicts of the plain model. `training_state.pth` holds
    everything needed to resume; it is written last, so that a run killed while writing repeats
    what it did not finish.
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

    def create(self) -> None:
        """Create the folder.

        Raises:
            TrainingError: it cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(
                f"the folder {self.path} cannot be created: {error.strerror}; give another one "
                f"with --output"
            ) from error


@dataclass(frozen=True)
class SavedRun:
    """A saved run: its history, and what `TrainingState.state` returned."""

    history: History
    state: Mapping[str, Any]


def save(
    folder: RunFolder,
    setup: TrainingSetup,
    state: TrainingState,
    history: History,
    *,
    epoch_ended: bool,
) -> None:
    """Write the state of a run, and at the end of an epoch its models and log.

    All processes must call this together; the first one writes.

    Raises:
        TrainingError: a file cannot be written; older versions of the files are unchanged.
    """
    processes = setup.processes
    loss_sum = processes.sum_across([history.loss_sum])[0] / processes.count
    gathered = gather(state.state())
    if not processes.is_first:
        return
    if epoch_ended:
        exported = gathered["average"] if state.average else gathered["model"]
        write_tensors(folder.last, exported)
        if history.best == history.epochs[-1]:
            write_tensors(folder.best, exported)
        write_file(folder.log, history.as_csv().encode())
    document = {
        "format": FORMAT,
        "recipe": setup.recipe.to_json(),
        "fingerprint": _fingerprint(setup),
        "position": tuple(history.position),
        "loss_sum": loss_sum,
        "epochs": [dataclasses.asdict(epoch) for epoch in history.epochs],
        "state": gathered,
    }
    write_tensors(folder.state, document)


def read(folder: RunFolder, recipe: Recipe) -> tuple[SavedRun, dict[str, Any]]:
    """Read the saved state of a run of this recipe, and the fingerprint for `check_fingerprint`.

    Raises:
        TrainingError: the file cannot be read, or belongs to another recipe.
    """
    document = read_tensors(folder.state)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise TrainingError(
            f"{folder.state} is no state of a run that this version of labeltrace can resume; "
            f"start again in another folder with --output"
        )
    _check_same(
        folder, _flatten(json.loads(document["recipe"])), _flatten(json.loads(recipe.to_json()))
    )
    history = History(
        Position(*document["position"]),
        document["loss_sum"],
        tuple(EpochResult(**epoch) for epoch in document["epochs"]),
    )
    return SavedRun(history, document["state"]), document["fingerprint"]


def check_fingerprint(
    folder: RunFolder, setup: TrainingSetup, fingerprint: Mapping[str, Any]
) -> None:
    """Check that data and number of micro-batches are the same as in the saved run.

    Raises:
        TrainingError: they differ.
    """
    _check_same(folder, fingerprint, _fingerprint(setup))


def _fingerprint(setup: TrainingSetup) -> dict[str, Any]:
    return {
        "training images": setup.sampling.samples,
        "classes": list(setup.images.classes),
        "parts of a batch (processes times accumulation)": setup.sampling.micro_batches,
    }


def _check_same(folder: RunFolder, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differing = [
        f"{name}: {old.get(name)!r} then, {new.get(name)!r} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in NO_EFFECT_ON_RESULT
    ]
    if differing:
        raise TrainingError(
            f"the run in {folder.path} is another one; continue it with its own settings, or give "
            f"a new folder with --output. Differing: {'; '.join(differing)}"
        )


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, dict)
        flat |= _flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat
