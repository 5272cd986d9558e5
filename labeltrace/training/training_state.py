"""The part of a training run that changes with every update: model, optimizer, schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn

from labeltrace.aligned import AlignedModule
from labeltrace.errors import TrainingError
from labeltrace.training.distributed import Processes
from labeltrace.training.objective import align_model
from labeltrace.training.parallel import Engine, load_optimizer, synchronize, wrap_parallel
from labeltrace.training.precision import gradient_scaler
from labeltrace.training.recipe import Recipe
from labeltrace.training.setup import TrainingSetup
from labeltrace.training.weights import load_state


@dataclass(frozen=True, eq=False)
class TrainingState:
    """Everything that training updates.

    The attributes never change; the objects they refer to do.

    Attributes:
        aligned: the model with its labels.
        network: the module to call in training: `aligned`, or DDP around it.
        average: the moving average of the weights; None without one.
        optimizer: one of timm's.
        scheduler: one of timm's; None where the learning rate is constant.
        scaler: the loss scaler; does nothing except in half precision.
    """

    aligned: AlignedModule
    network: nn.Module
    average: ModelEmaV3 | None
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler | None
    scaler: torch.amp.GradScaler

    @property
    def evaluation_model(self) -> nn.Module:
        """The module that is evaluated and exported: the average, if there is one."""
        return cast(nn.Module, self.average.module) if self.average else self.aligned

    def synchronize(self, processes: Processes) -> None:
        """Average buffers over all processes, and free what FSDP2 gathered."""
        for module in {self.aligned, self.evaluation_model}:
            synchronize(module, processes)

    def state(self) -> dict[str, Any]:
        """The state dict of every object, by name; parameters may be sharded."""
        return {
            "model": self.aligned.state_dict(),
            "average": self.average.module.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "scaler": self.scaler.state_dict(),
        }


def build_state(
    setup: TrainingSetup, engine: Engine, saved: Mapping[str, Any] | None
) -> TrainingState:
    """Build everything that training updates.

    Args:
        setup: the fixed part of the run.
        engine: how several processes share a model.
        saved: what `TrainingState.state` returned in an earlier run, to continue from; None to
            start.

    Raises:
        LabelTraceError: a setting cannot be used, or `saved` belongs to another model.
    """
    recipe, processes = setup.recipe, setup.processes
    model = setup.loaded.model.to(processes.device)
    average = ModelEmaV3(model, decay=recipe.ema_decay) if recipe.ema_decay is not None else None
    if saved:  # before parameters are sharded
        load_state(model, saved["model"], "the state of the run")
        if average:
            load_state(average.module, saved["average"], "the state of the run")
    aligned = align_model(model, recipe.mixing.align)
    if recipe.model.compile:
        aligned.compile()
    network = wrap_parallel(aligned, average, processes, engine)
    optimizer = _make_optimizer(recipe, model)
    scheduler = _make_scheduler(recipe, optimizer, setup.sampling.updates)
    scaler = gradient_scaler(recipe.precision, processes.device)
    if saved:
        load_optimizer(optimizer, saved["optimizer"])
        scaler.load_state_dict(saved["scaler"])
        if scheduler:
            scheduler.load_state_dict(saved["scheduler"])
    return TrainingState(aligned, network, average, optimizer, scheduler, scaler)


def _make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    settings = recipe.optimizer
    known = [str(name) for name in list_optimizers()]
    if settings.name not in known:
        raise TrainingError(
            f"timm has no optimizer named {settings.name!r}; choose one of {', '.join(known)}"
        )
    return create_optimizer_v2(
        model,
        settings.name,
        lr=recipe.learning_rate,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
    )


def _make_scheduler(
    recipe: Recipe, optimizer: torch.optim.Optimizer, updates: int
) -> Scheduler | None:
    settings = recipe.schedule
    if settings.name == "constant":
        return None
    scheduler, _ = create_scheduler_v2(
        optimizer,
        settings.name,
        num_epochs=settings.epochs,
        warmup_epochs=settings.warmup_epochs,
        warmup_lr=settings.warmup_learning_rate,
        min_lr=settings.lowest_learning_rate,
        step_on_epochs=False,
        updates_per_epoch=updates,
    )
    return scheduler
