"""A recipe: all settings of a training run, as immutable data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from labeltrace.errors import TrainingError
from labeltrace.mixing.pairing import Mode, Partner

Strategy = Literal["none", "cutmix", "mixup", "patch", "block", "mix"]
Alignment = Literal["full", "last", "off"]
Precision = Literal["float32", "bf16", "fp16"]
Schedule = Literal["cosine", "poly", "constant"]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The model.

    Attributes:
        name: a timm name, or `package.module:factory`. A timm model gets one output per class.
        options: further arguments for timm's `create_model` or for the factory.
        image_size: height and width of the images in pixels; None for the model's default.
        pretrained: start from timm's trained weights.
        initial_weights: start from the weights in this file, which must fit the model.
        gradient_checkpointing: call timm's `set_grad_checkpointing`.
        compile: run the model through `torch.compile`.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    pretrained: bool = False
    initial_weights: str | None = None
    gradient_checkpointing: bool = False
    compile: bool = False


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The images and their augmentation, with the terms of timm's `create_transform`.

    Attributes:
        folder: holds `train/` and `val/` with a folder for each class, or CIFAR-10 or CIFAR-100 as
            published for Python; None for scikit-learn's digits.
        scale: smallest and largest area of a random crop, as a share of the image.
        ratio: smallest and largest ratio of a crop's width to its height.
        flip: probability of a horizontal flip.
        color_jitter: strength of color jitter; ignored if `auto_augment` is set.
        auto_augment: a policy in timm's notation, such as `rand-m9-mstd0.5-inc1`.
        erasing: probability of random erasing; pixels are replaced with noise.
        interpolation: interpolation of resized images.
        crop_share: side of the central crop of a validation image, as a share of the resized one.
        repeats: how often an image is drawn in an epoch (repeated augmentation). An epoch has the
            same number of samples, so it sees that many times fewer different images.
        workers: processes that read images, for each training process.
    """

    folder: str | None = None
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    color_jitter: float = 0.4
    auto_augment: str | None = None
    erasing: float = 0.0
    interpolation: str = "bicubic"
    crop_share: float = 0.875
    repeats: int = 1
    workers: int = 4


@dataclass(frozen=True, kw_only=True)
class MixingSettings:
    """How images are mixed, and how their labels are aligned.

    Attributes:
        strategy: `mix` switches between CutMix and MixUp.
        alpha: concentration of the Beta distribution of lambda.
        mixup_alpha: the same for MixUp in `mix`.
        switch: probability of CutMix in `mix`.
        patch: side of a patch in pixels, for the strategies `patch` and `block`.
        mode: which images share a draw.
        partner: how partners are found.
        align: `full` moves labels through the whole model (TL-Align), `last` through the attention
            of its last layer only (TransMix, Table 8), `off` uses the ratio of pixels.
        smoothing: label smoothing.
    """

    strategy: Strategy = "cutmix"
    alpha: float = 1.0
    mixup_alpha: float = 0.8
    switch: float = 0.5
    patch: int = 16
    mode: Mode = "batch"
    partner: Partner = "permutation"
    align: Alignment = "full"
    smoothing: float = 0.1


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """One of timm's optimizers.

    Attributes:
        name: a name in `timm.optim.list_optimizers()`.
        learning_rate: the peak learning rate.
        reference_batch: the batch size that the learning rate is given for. The learning rate is
            scaled linearly to the batch size of the recipe. None: no scaling.
        weight_decay: weight decay; biases and what the model itself exempts have none.
        momentum: momentum, for optimizers that have one.
        clip_norm: largest norm of the gradient; None for no clipping.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    reference_batch: int | None = None
    weight_decay: float = 0.05
    momentum: float = 0.9
    clip_norm: float | None = None


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """Length of the run and the learning rate over it (timm's schedulers, stepped per update).

    Attributes:
        name: the schedule; `constant` has no warm-up.
        epochs: number of epochs, warm-up included.
        warmup_epochs: number of epochs in which the learning rate rises.
        warmup_learning_rate: learning rate at the start of the warm-up.
        lowest_learning_rate: learning rate at the end.
    """

    name: Schedule = "cosine"
    epochs: int = 300
    warmup_epochs: int = 5
    warmup_learning_rate: float = 1e-6
    lowest_learning_rate: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training run.

    Attributes:
        batch: images in one update, over all processes and micro-batches.
        accumulation: micro-batches of a batch that each process works on one after the other.
        precision: `bf16` and `fp16` use autocast; `fp16` also scales the loss.
        ema_decay: decay of a moving average of the weights, which is then evaluated and exported;
            None for no average.
        seed: seed of weights, order, augmentation, mixing and dropout.
        checkpoint_updates: also write the state every so many updates; None for after epochs only.
    """

    model: ModelSettings
    data: DataSettings = DataSettings()
    mixing: MixingSettings = MixingSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    batch: int = 1024
    accumulation: int = 1
    precision: Precision = "float32"
    ema_decay: float | None = None
    seed: int = 0
    checkpoint_updates: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("strategy", self.mixing.strategy, get_args(Strategy)),
            ("align", self.mixing.align, get_args(Alignment)),
            ("precision", self.precision, get_args(Precision)),
            ("schedule", self.schedule.name, get_args(Schedule)),
        ):
            if value not in known:
                raise TrainingError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        for name, number, lowest in (
            ("batch", self.batch, 1),
            ("accumulation", self.accumulation, 1),
            ("epochs", self.schedule.epochs, 1),
            ("repeats", self.data.repeats, 1),
            ("workers", self.data.workers, 0),
            ("checkpoint_updates", self.checkpoint_updates, 1),
        ):
            if number is not None and number < lowest:
                raise TrainingError(f"{name} must be at least {lowest}, got {number}")

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, scaled to this recipe's batch size."""
        share = (
            1
            if self.optimizer.reference_batch is None
            else self.batch / self.optimizer.reference_batch
        )
        return self.optimizer.learning_rate * share

    def to_json(self) -> str:
        """The recipe as a JSON document.

        Raises:
            TrainingError: a model option cannot be written as JSON.
        """
        try:
            return json.dumps(dataclasses.asdict(self), indent=2)
        except TypeError as error:
            raise TrainingError(
                f"the model's options must be plain data (numbers, strings, lists, dicts): {error}"
            ) from error


def with_changes(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with some settings changed, in order, by dotted name.

    Args:
        recipe: the recipe to start from.
        changes: such as `{"batch": 64, "schedule.epochs": 3}`, or a whole section, such as
            `{"mixing": MixingSettings(...)}`.
    """
    for name, value in changes.items():
        section, _, setting = name.rpartition(".")
        if section:
            value = dataclasses.replace(getattr(recipe, section), **{setting: value})
        recipe = dataclasses.replace(recipe, **{section or setting: value})
    return recipe
