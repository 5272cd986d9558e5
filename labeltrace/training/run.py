"""A training run from start to end."""

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
from labeltrace.training.atomic_files import write_file
from labeltrace.training.callbacks import Callback
from labeltrace.training.checkpoints import RunFolder
from labeltrace.training.distributed import join_processes
from labeltrace.training.evaluation import Score, evaluate
from labeltrace.training.history import EpochResult, History
from labeltrace.training.loading import training_batches, validation_batches
from labeltrace.training.parallel import Engine
from labeltrace.training.recipe import Recipe
from labeltrace.training.sampling import Position
from labeltrace.training.setup import TrainingSetup, build_setup
from labeltrace.training.train_step import Update, make_update
from labeltrace.training.training_state import TrainingState, build_state


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Attributes:
        recipe: the settings of the run.
        folder: the folder of its files.
        data: a description of the images.
        images: number of training images and of validation images.
        classes: number of classes.
        parameters: number of the model's parameters.
        updates: number of updates in all epochs.
        processes: number of processes.
        history: the results of every epoch.
        is_first: whether this is the process that prints and writes files.
    """

    recipe: Recipe
    folder: Path
    data: str
    images: tuple[int, int]
    classes: int
    parameters: int
    updates: int
    processes: int
    history: History
    is_first: bool


def train(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    engine: Engine = "ddp",
    device: str | None = None,
    callback: Callback | None = None,
) -> Result:
    """Train a model by a recipe. Under torchrun every process calls this.

    Seeds the global generators of Python, NumPy and torch.

    Args:
        recipe: the settings.
        output: folder for the files that `checkpoints.RunFolder` names.
        resume: continue the run in the folder, if there is one.
        engine: how several processes share a model.
        device: the device, such as `cpu` or `cuda`; None for an accelerator if available.
        callback: called by the first process at training events.

    Raises:
        LabelTraceError: a setting, the images, the model or a checkpoint cannot be used; a file
            cannot be written; the loss is NaN; a worker or another process died. Checkpoints that
            were already written stay complete.
    """
    if engine not in get_args(Engine):
        raise TrainingError(f"engine must be one of {', '.join(get_args(Engine))}, got {engine!r}")
    folder = RunFolder(output)
    if folder.state.exists() and not resume:
        raise TrainingError(
            f"{output} holds a run already; continue it with --resume, or give another folder with "
            f"--output"
        )
    with join_processes(device) as processes:
        saved, fingerprint = (
            checkpoints.read(folder, recipe) if folder.state.exists() else (None, None)
        )
        setup = build_setup(recipe, processes)
        state = build_state(setup, engine, saved.state if saved else None)
        if fingerprint is not None:
            checkpoints.check_fingerprint(folder, setup, fingerprint)
        if processes.is_first:
            folder.create()
            write_file(folder.recipe, recipe.to_json().encode())
        history = saved.history if saved else History()
        silent = Callback()
        with (callback or silent) if processes.is_first else silent as active:
            active.on_start(setup, history)
            history = _train_remaining(setup, state, folder, history, active)
        return _result(setup, state, folder, history)


def _train_remaining(
    setup: TrainingSetup,
    state: TrainingState,
    folder: RunFolder,
    history: History,
    callback: Callback,
) -> History:
    """Train the epochs after the position of the history."""
    batches = training_batches(
        setup.images,
        setup.loaded,
        setup.recipe.data,
        setup.sampling,
        history.position,
        setup.micro_batches,
        setup.processes.device,
    )
    for _ in range(history.position.epoch, setup.sampling.epochs):
        history = _train_epoch(setup, state, folder, history, batches, callback)
        checkpoints.save(folder, setup, state, history, epoch_ended=True)
        callback.on_epoch_end(history.epochs[-1])
    return history


def _train_epoch(
    setup: TrainingSetup,
    state: TrainingState,
    folder: RunFolder,
    history: History,
    batches: Iterator[tuple[Tensor, Tensor]],
    callback: Callback,
) -> History:
    started = time.perf_counter()
    processes = setup.processes
    epoch, per_epoch = history.position.epoch, setup.sampling.updates
    state.aligned.train()
    last: Update | None = None
    for index in range(history.position.updates, per_epoch):
        last = make_update(setup, state, batches, epoch * per_epoch + index + 1)
        callback.on_update(last)
        position = Position(epoch, index + 1)
        history = dataclasses.replace(
            history, position=position, loss_sum=history.loss_sum + last.loss
        )
        if _checkpoint_is_due(setup.recipe, last.number) and index + 1 < per_epoch:
            state.synchronize(processes)
            checkpoints.save(folder, setup, state, history, epoch_ended=False)
    state.synchronize(processes)
    score = _evaluate(setup, state)
    loss_sum = processes.sum_across([history.loss_sum])[0] / processes.count
    result = EpochResult(
        epoch=epoch + 1,
        updates=(epoch + 1) * per_epoch,
        learning_rate=last.learning_rate if last else state.optimizer.param_groups[0]["lr"],
        training_loss=loss_sum / per_epoch,
        validation_loss=score.loss,
        validation_accuracy=score.accuracy,
        seconds=round(time.perf_counter() - started, 3),
    )
    return History(Position(epoch + 1, 0), 0.0, (*history.epochs, result))


def _checkpoint_is_due(recipe: Recipe, number: int) -> bool:
    every = recipe.checkpoint_updates
    return every is not None and number % every == 0


def _evaluate(setup: TrainingSetup, state: TrainingState) -> Score:
    batches = validation_batches(
        setup.images,
        setup.loaded,
        setup.recipe.data,
        setup.recipe.batch // setup.sampling.micro_batches,
        setup.processes,
    )
    score = evaluate(
        state.evaluation_model,
        batches,
        len(setup.images.classes),
        setup.recipe.precision,
        setup.processes,
    )
    state.synchronize(setup.processes)
    return score


def _result(
    setup: TrainingSetup, state: TrainingState, folder: RunFolder, history: History
) -> Result:
    return Result(
        recipe=setup.recipe,
        folder=folder.path,
        data=setup.images.name,
        images=(setup.sampling.samples, len(setup.images.validation)),
        classes=len(setup.images.classes),
        parameters=sum(parameter.numel() for parameter in state.aligned.parameters()),
        updates=setup.sampling.updates * setup.sampling.epochs,
        processes=setup.processes.count,
        history=history,
        is_first=setup.processes.is_first,
    )
