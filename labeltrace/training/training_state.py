"""All that a run works with, built from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn

from labeltrace.aligned import AlignedModule
from labeltrace.errors import TrainingError
from labeltrace.model_loading import LoadedModel, load_model
from labeltrace.training.distributed import Processes
from labeltrace.training.images import Images, read_images
from labeltrace.training.mixers import mixer_of
from labeltrace.training.objective import Objective, aligned_as
from labeltrace.training.parallel import Engine, load_optimizer, settle, spread
from labeltrace.training.precision import gradient_scaler
from labeltrace.training.recipe import ModelSettings, Recipe
from labeltrace.training.sampling import Sampling
from labeltrace.training.seeds import seed_everything, seed_of
from labeltrace.training.weights import load_state, load_weights


@dataclass(frozen=True, eq=False)
class Machinery:
    """What a run works with. The fields stay; what they hold learns.

    Attributes:
        network: the module to call in training: `aligned`, or DDP around it.
        average: the moving average of the weights, if there is one.
        scheduler: None where the learning rate is constant.
    """

    recipe: Recipe
    processes: Processes
    images: Images
    sampling: Sampling
    objective: Objective
    loaded: LoadedModel
    aligned: AlignedModule
    network: nn.Module
    average: ModelEmaV3 | None
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler | None
    scaler: torch.amp.GradScaler

    @property
    def evaluated(self) -> nn.Module:
        """The module that is evaluated and exported."""
        return cast(nn.Module, self.average.module) if self.average else self.aligned

    @property
    def own_parts(self) -> range:
        """The parts of each batch that this process goes through."""
        first = self.processes.index * self.recipe.accumulation
        return range(first, first + self.recipe.accumulation)

    def settle(self) -> None:
        """Make all processes agree, and give back what FSDP2 gathered."""
        for module in {self.aligned, self.evaluated}:
            settle(module, self.processes)

    def state(self) -> dict[str, Any]:
        """What learns, by name; parameters may be sharded."""
        return {
            "model": self.aligned.state_dict(),
            "average": self.average.module.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "scaler": self.scaler.state_dict(),
        }


def sampling_of(recipe: Recipe, images: Images, processes: Processes) -> Sampling:
    """The order of the samples.

    Raises:
        TrainingError: the batch does not fit the images or the processes.
    """
    return Sampling(
        samples=len(images.training),
        batch=recipe.batch,
        parts=processes.count * recipe.accumulation,
        epochs=recipe.schedule.epochs,
        repeats=recipe.data.repeats,
        seed=recipe.seed,
    )


def build(
    recipe: Recipe, processes: Processes, engine: Engine, saved: Mapping[str, Any] | None
) -> Machinery:
    """Build all of it, where `saved` is a state of an earlier run in that state.

    Raises:
        LabelTraceError: a setting cannot be used, the images or the model cannot be had.
    """
    images = read_images(recipe.data.folder)
    sampling = sampling_of(recipe, images, processes)
    objective = Objective(
        mixer=mixer_of(recipe.mixing),
        moves_labels=recipe.mixing.align != "off",
        num_classes=len(images.classes),
        smoothing=recipe.mixing.smoothing,
    )
    seed_everything(seed_of(recipe.seed, "model"))
    loaded = _model(recipe.model, len(images.classes))
    model = loaded.model.to(processes.device)
    average = ModelEmaV3(model, decay=recipe.ema_decay) if recipe.ema_decay is not None else None
    if saved:  # before parameters are sharded
        load_state(model, saved["model"], "the state of the run")
        if average:
            load_state(average.module, saved["average"], "the state of the run")
    aligned = aligned_as(model, recipe.mixing.align)
    if recipe.model.compile:
        aligned.compile()
    network = spread(aligned, average, processes, engine)
    optimizer = _optimizer(recipe, model)
    scheduler = _scheduler(recipe, optimizer, sampling.updates)
    scaler = gradient_scaler(recipe.precision, processes.device)
    if saved:
        load_optimizer(optimizer, saved["optimizer"])
        scaler.load_state_dict(saved["scaler"])
        if scheduler:
            scheduler.load_state_dict(saved["scheduler"])
    return Machinery(
        recipe=recipe,
        processes=processes,
        images=images,
        sampling=sampling,
        objective=objective,
        loaded=loaded,
        aligned=aligned,
        network=network,
        average=average,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=scaler,
    )


def _model(settings: ModelSettings, num_classes: int) -> LoadedModel:
    from_timm = ":" not in settings.name
    classes = {"num_classes": num_classes} if from_timm else {}
    loaded = load_model(
        settings.name,
        image_size=settings.image_size,
        pretrained=settings.pretrained,
        options={**classes, **settings.options},
    )
    if settings.initial_weights:
        load_weights(loaded.model, Path(settings.initial_weights))
    if settings.gradient_checkpointing:
        switch = getattr(loaded.model, "set_grad_checkpointing", None)
        if switch is None:
            raise TrainingError(
                f"{settings.name} has no gradient checkpointing: timm's models switch it on by "
                f"their method set_grad_checkpointing, and this one has none"
            )
        switch(True)
    return loaded


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    settings = recipe.optimizer
    known = [str(name) for name in list_optimizers()]
    if settings.name not in known:
        raise TrainingError(
            f"timm has no optimizer named {settings.name!r}; it has {', '.join(known)}"
        )
    return create_optimizer_v2(
        model,
        settings.name,
        lr=recipe.learning_rate,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
    )


def _scheduler(recipe: Recipe, optimizer: torch.optim.Optimizer, updates: int) -> Scheduler | None:
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
