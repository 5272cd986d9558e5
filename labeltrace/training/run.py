"""A training run from beginning to end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from torch import Tensor

from labeltrace.errors import TrainingError
from labeltrace.training import checkpoints
from labeltrace.training.atomic_files import write
from labeltrace.training.callbacks import Watcher
from labeltrace.training.checkpoints import Folder
from labeltrace.training.distributed import Processes, joined
from labeltrace.training.evaluation import Score, evaluate
from labeltrace.training.history import EpochResult, Record
from labeltrace.training.loading import training_batches, validation_batches
from labeltrace.training.parallel import Engine
from labeltrace.training.recipe import Recipe
from labeltrace.training.sampling import Position
from labeltrace.training.train_step import Update, update
from labeltrace.training.training_state import Machinery, build


@dataclass(frozen=True)
class Result:
    """What a run did.

    Attributes:
        recipe: its settings.
        folder: where its files are.
        data: what the images are.
        images: number of training and of validation images.
        classes: number of classes.
        parameters: number of the model's parameters.
        updates: number of updates in all epochs.
        processes: number of processes.
        record: what came out, epoch by epoch.
        is_first: whether this process is the one to speak.
    """

    recipe: Recipe
    folder: Path
    data: str
    images: tuple[int, int]
    classes: int
    parameters: int
    updates: int
    processes: int
    record: Record
    is_first: bool


def train(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    engine: Engine = "ddp",
    device: str | None = None,
    watcher: Watcher | None = None,
) -> Result:
    """Train a model by a recipe; under torchrun together with the other processes.

    Seeds the global generators of Python, NumPy and torch.

    Args:
        recipe: the settings.
        output: folder for the files of `checkpoints.Folder`.
        resume: go on with the run in the folder, if there is one.
        engine: how several processes share a model.
        device: where to compute; None for an accelerator where there is one.
        watcher: told by the first process what happens.

    Raises:
        LabelTraceError: a setting, the images, the model or a checkpoint cannot be used; a file
            cannot be written; the loss is NaN; a worker or another process died. The checkpoints
            written until then are whole.
    """
    if engine not in get_args(Engine):
        raise TrainingError(f"engine must be one of {', '.join(get_args(Engine))}, got {engine!r}")
    folder = Folder(output)
    if folder.state.exists() and not resume:
        raise TrainingError(
            f"{output} holds a run already; go on with it by --resume, or give another folder with "
            f"--output"
        )
    with joined(device) as processes:
        saved, fingerprint = (
            checkpoints.read(folder, recipe) if folder.state.exists() else (None, None)
        )
        run = build(recipe, processes, engine, saved.state if saved else None)
        if fingerprint is not None:
            checkpoints.check_fingerprint(folder, run, fingerprint)
        if processes.is_first:
            folder.make()
            write(folder.recipe, recipe.to_json().encode())
        record = saved.record if saved else Record()
        silent = Watcher()
        with (watcher or silent) if processes.is_first else silent as told:
            told.began(run, record)
            record = _rest(run, folder, record, told)
        return _result(run, folder, record, processes)


def _rest(run: Machinery, folder: Folder, record: Record, watcher: Watcher) -> Record:
    """Go through what is left of the run."""
    batches = training_batches(
        run.images,
        run.loaded,
        run.recipe.data,
        run.sampling,
        record.position,
        run.own_parts,
        run.processes.device,
    )
    for _ in range(record.position.epoch, run.sampling.epochs):
        record = _epoch(run, folder, record, batches, watcher)
        checkpoints.save(folder, run, record, epoch_ended=True)
        watcher.ended(record.epochs[-1])
    return record


def _epoch(
    run: Machinery,
    folder: Folder,
    record: Record,
    batches: Iterator[tuple[Tensor, Tensor]],
    watcher: Watcher,
) -> Record:
    started = time.perf_counter()
    epoch, each = record.position.epoch, run.sampling.updates
    run.aligned.train()
    last: Update | None = None
    for within in range(record.position.updates, each):
        last = update(run, batches, epoch * each + within + 1)
        watcher.updated(last)
        position = Position(epoch, within + 1)
        record = dataclasses.replace(
            record, position=position, loss_sum=record.loss_sum + last.loss
        )
        if _is_due(run.recipe, last.number) and within + 1 < each:
            run.settle()
            checkpoints.save(folder, run, record, epoch_ended=False)
    run.settle()
    score = _score(run)
    loss_sum = run.processes.summed([record.loss_sum])[0] / run.processes.count
    result = EpochResult(
        epoch=epoch + 1,
        updates=(epoch + 1) * each,
        learning_rate=last.learning_rate if last else run.optimizer.param_groups[0]["lr"],
        training_loss=loss_sum / each,
        validation_loss=score.loss,
        validation_accuracy=score.accuracy,
        seconds=round(time.perf_counter() - started, 3),
    )
    return Record(Position(epoch + 1, 0), 0.0, (*record.epochs, result))


def _is_due(recipe: Recipe, number: int) -> bool:
    every = recipe.checkpoint_updates
    return every is not None and number % every == 0


def _score(run: Machinery) -> Score:
    batches = validation_batches(
        run.images,
        run.loaded,
        run.recipe.data,
        run.recipe.batch // run.sampling.parts,
        run.processes.index,
        run.processes.count,
        run.processes.device,
    )
    score = evaluate(
        run.evaluated, batches, len(run.images.classes), run.recipe.precision, run.processes
    )
    run.settle()
    return score


def _result(run: Machinery, folder: Folder, record: Record, processes: Processes) -> Result:
    return Result(
        recipe=run.recipe,
        folder=folder.path,
        data=run.images.name,
        images=(run.sampling.samples, len(run.images.validation)),
        classes=len(run.images.classes),
        parameters=sum(parameter.numel() for parameter in run.aligned.parameters()),
        updates=run.sampling.updates * run.sampling.epochs,
        processes=processes.count,
        record=record,
        is_first=processes.is_first,
    )
