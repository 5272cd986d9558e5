"""The summary that a training run prints."""

from __future__ import annotations

from labeltrace.training.recipe import MixingSettings, Recipe
from labeltrace.training.run import Result

TARGETS = {
    "full": "targets aligned through the whole model",
    "last": "targets aligned through the attention of the last layer",
    "off": "targets by the ratio of pixels",
}


def summary(result: Result) -> str:
    """A few lines of text: model, data, settings, accuracy, files."""
    recipe, history = result.recipe, result.history
    last, best = history.epochs[-1], history.best
    assert best is not None
    seconds = sum(epoch.seconds for epoch in history.epochs)
    training, validation = result.images
    of_average = " of the averaged weights" if recipe.ema_decay is not None else ""
    return "\n".join(
        (
            f"Trained {recipe.model.name}, {result.parameters:,} parameters, on {result.data}: "
            f"{training} images of {result.classes} classes.",
            f"{recipe.schedule.epochs} epochs, {result.updates} updates of {recipe.batch} images, "
            f"{_processes(result)}, {recipe.precision}, {seconds:.0f} s.",
            f"{_mixing(recipe.mixing)}; {_optimizer(recipe)}.",
            f"Accuracy{of_average} on {validation} images held out: "
            f"{last.validation_accuracy:.2%} after the last epoch, {best.validation_accuracy:.2%} "
            f"after the best, epoch {best.epoch} (chosen by these same images).",
            f"Weights, log and the state to resume from: {result.folder}",
        )
    )


def _processes(result: Result) -> str:
    return "1 process" if result.processes == 1 else f"{result.processes} processes"


def _mixing(settings: MixingSettings) -> str:
    if settings.strategy == "none":
        return f"No mixing, label smoothing {settings.smoothing}"
    return (
        f"Mixing {settings.strategy}, {TARGETS[settings.align]}, label smoothing "
        f"{settings.smoothing}"
    )


def _optimizer(recipe: Recipe) -> str:
    settings = recipe.optimizer
    return (
        f"{settings.name}, learning rate {recipe.learning_rate:.3g} ({recipe.schedule.name}, "
        f"{recipe.schedule.warmup_epochs} epochs of warm-up), weight decay {settings.weight_decay}"
    )
