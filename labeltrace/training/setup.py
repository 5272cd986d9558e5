"""The fixed part of a training run, built from a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labeltrace.errors import TrainingError
from labeltrace.model_loading import LoadedModel, load_model
from labeltrace.training.distributed import Processes
from labeltrace.training.images import Images, read_images
from labeltrace.training.mixers import make_mixer
from labeltrace.training.objective import Objective
from labeltrace.training.recipe import ModelSettings, Recipe
from labeltrace.training.sampling import Sampling
from labeltrace.training.seeds import derive_seed, seed_everything
from labeltrace.training.weights import load_weights


@dataclass(frozen=True, eq=False)
class TrainingSetup:
    """Everything about a run that is decided before the first update and stays fixed.

    Attributes:
        recipe: the settings of the run.
        processes: this process and the number of all processes.
        images: training and validation images.
        sampling: the order of the training samples.
        objective: the loss.
        loaded: the model as it was loaded, with the size and normalization of its input.
    """

    recipe: Recipe
    processes: Processes
    images: Images
    sampling: Sampling
    objective: Objective
    loaded: LoadedModel

    @property
    def micro_batches(self) -> range:
        """The micro-batches of every batch that this process works on."""
        first = self.processes.index * self.recipe.accumulation
        return range(first, first + self.recipe.accumulation)


def build_setup(recipe: Recipe, processes: Processes) -> TrainingSetup:
    """Read the images, load the model and check the settings against both.

    Raises:
        LabelTraceError: a setting cannot be used, or the images or the model cannot be loaded.
    """
    images = read_images(recipe.data.folder)
    num_classes = len(images.classes)
    sampling = make_sampling(recipe, images, processes)
    objective = Objective(
        mixer=make_mixer(recipe.mixing),
        moves_labels=recipe.mixing.align != "off",
        num_classes=num_classes,
        smoothing=recipe.mixing.smoothing,
    )
    seed_everything(derive_seed(recipe.seed, "model"))
    loaded = _load_model(recipe.model, num_classes)
    return TrainingSetup(recipe, processes, images, sampling, objective, loaded)


def make_sampling(recipe: Recipe, images: Images, processes: Processes) -> Sampling:
    """The order of the samples.

    Raises:
        TrainingError: the batch does not fit the number of images or of processes.
    """
    return Sampling(
        samples=len(images.training),
        batch=recipe.batch,
        micro_batches=processes.count * recipe.accumulation,
        epochs=recipe.schedule.epochs,
        repeats=recipe.data.repeats,
        seed=recipe.seed,
    )


def _load_model(settings: ModelSettings, num_classes: int) -> LoadedModel:
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
                f"{settings.name} has no gradient checkpointing: it is switched on by a method "
                f"set_grad_checkpointing, as timm's models have it, and this model has none; "
                f"train without it, or add the method"
            )
        switch(True)
    return loaded
