"""A recipe: all that decides how a training run goes, as immutable data."""

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
        name: of timm's, or `package.module:factory`; timm's are made with the data's classes.
        options: further arguments of timm's `create_model`, or of the factory.
        image_size: height and width of the images in pixels; None for the model's own.
        pretrained: start from timm's trained weights.
        initial_weights: start from this file: the weights of this very model.
        gradient_checkpointing: timm's `set_grad_checkpointing`.
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
    """The images and what is done to them, in the words of timm's `create_transform`.

    Attributes:
        folder: holds `train/` and `val/` with a folder for each class, or CIFAR-10 or CIFAR-100 as
            published for Python; None for scikit-learn's digits.
        scale: smallest and largest area of a random crop, as a share of the image.
        ratio: smallest and largest ratio of a crop's width to its height.
        flip: probability of a horizontal flip.
        color_jitter: strength of colour jitter; unused beside `auto_augment`.
        auto_augment: timm's notation, such as `rand-m9-mstd0.5-inc1`.
        erasing: probability of random erasing, with noise for each pixel.
        interpolation: of resized images.
        crop_share: side of the central crop of a validation image, as a share of the resized one.
        repeats: how often an image is drawn within an epoch, which then sees as many times fewer
            images (repeated augmentation).
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
    """How images are mixed, and what their labels become.

    Attributes:
        strategy: `mix` switches between CutMix and MixUp.
        alpha: concentration of the Beta distribution of lambda.
        mixup_alpha: likewise, of MixUp within `mix`.
        switch: probability of CutMix within `mix`.
        patch: side of a patch in pixels, of the strategies `patch` and `block`.
        mode: which images share a draw.
        partner: how partners are found.
        align: `full` moves labels through the whole model (TL-Align), `last` through the attention
            of its last layer alone (TransMix, Table 8), `off` leaves the ratio of pixels.
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
        name: as in `timm.optim.list_optimizers()`.
        learning_rate: its peak.
        for_batch: the batch that the learning rate is meant for; it grows with the batch of the
            recipe. None where it is meant for that batch.
        weight_decay: not for biases and what the model itself exempts.
        momentum: of those optimizers that have one.
        clip_norm: largest norm of the gradient; None for any.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    for_batch: int | None = None
    weight_decay: float = 0.05
    momentum: float = 0.9
    clip_norm: float | None = None


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """How long, and how the learning rate goes with it (timm's schedulers, by update).

    Attributes:
        name: the schedule; `constant` has no warm-up.
        epochs: their number, warm-up included.
        warmup_epochs: how many of them the learning rate rises in.
        warmup_learning_rate: where it starts.
        lowest_learning_rate: where it ends.
    """

    name: Schedule = "cosine"
    epochs: int = 300
    warmup_epochs: int = 5
    warmup_learning_rate: float = 1e-6
    lowest_learning_rate: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides how a training run goes.

    Attributes:
        batch: images of one update, over all processes and accumulated parts.
        accumulation: parts of a batch that each process goes through one after the other.
        precision: `bf16` and `fp16` are autocast; `fp16` scales the loss.
        ema_decay: keep an average of the weights, which is then what is evaluated and exported.
        seed: of weights, order, augmentation, mixing and dropout.
        checkpoint_updates: write the state after so many updates too, not after epochs alone.
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
        """The peak for this recipe's batch."""
        share = 1 if self.optimizer.for_batch is None else self.batch / self.optimizer.for_batch
        return self.optimizer.learning_rate * share

    def to_json(self) -> str:
        """The recipe as one JSON document.

        Raises:
            TrainingError: the model has options that JSON cannot hold.
        """
        try:
            return json.dumps(dataclasses.asdict(self), indent=2)
        except TypeError as error:
            raise TrainingError(f"the model's options must be plain data: {error}") from error


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with some settings changed, one after the other, by dotted name.

    `{"batch": 64, "schedule.epochs": 3}`; also a whole part, such as `{"mixing": …}`.
    """
    for name, value in changes.items():
        part, _, setting = name.rpartition(".")
        if part:
            value = dataclasses.replace(getattr(recipe, part), **{setting: value})
        recipe = dataclasses.replace(recipe, **{part or setting: value})
    return recipe
