"""Batches of augmented images, through torch's data loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from labeltrace.errors import TrainingError
from labeltrace.model_loading import LoadedModel
from labeltrace.training.images import Images, Samples, Unreadable
from labeltrace.training.recipe import DataSettings
from labeltrace.training.sampling import Draw, Position, Sampling, shares_of
from labeltrace.training.seeds import seeded

Transform = Callable[[Image.Image], Tensor]
NO_TARGET = -1  # of a sample that fills up a batch
PREFETCHED = 2  # batches for each worker


def training_batches(
    images: Images,
    loaded: LoadedModel,
    settings: DataSettings,
    sampling: Sampling,
    position: Position,
    parts: range,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The parts of batches that are left of a run, augmented: (B, 3, H, W) and (B,) int64.

    Raises:
        TrainingError: an image cannot be read, or a worker died.
    """
    transform = _training_transform(loaded, settings)
    samples = _Augmented(images.training, transform)
    order = _Listed(sampling.batches(position, parts))
    return _batches(samples, order, settings.workers, device)


def validation_batches(
    images: Images,
    loaded: LoadedModel,
    settings: DataSettings,
    batch: int,
    process: int,
    processes: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One process's share of the validation images; `NO_TARGET` where a batch is filled up.

    Raises:
        TrainingError: an image cannot be read, or a worker died.
    """
    samples = _Plain(images.validation, _validation_transform(loaded, settings))
    order = shares_of(len(images.validation), batch, process, processes)
    return _batches(samples, order, settings.workers, device)


def _training_transform(loaded: LoadedModel, settings: DataSettings) -> Transform:
    return cast(
        Transform,
        create_transform(
            loaded.input_size,
            is_training=True,
            scale=settings.scale,
            ratio=settings.ratio,
            hflip=settings.flip,
            color_jitter=settings.color_jitter,
            auto_augment=settings.auto_augment,
            interpolation=settings.interpolation,
            mean=loaded.mean,
            std=loaded.std,
            re_prob=settings.erasing,
            re_mode="pixel",
        ),
    )


def _validation_transform(loaded: LoadedModel, settings: DataSettings) -> Transform:
    return cast(
        Transform,
        create_transform(
            loaded.input_size,
            interpolation=settings.interpolation,
            mean=loaded.mean,
            std=loaded.std,
            crop_pct=settings.crop_share,
        ),
    )


class _Augmented(Dataset[Any]):
    """Samples, each augmented by the seed of its draw."""

    def __init__(self, samples: Samples, transform: Transform) -> None:
        self.samples, self.transform = samples, transform

    def __getitem__(self, draw: Draw) -> tuple[Tensor | Unreadable, int]:
        image, target = self.samples[draw.image]
        if isinstance(image, Unreadable):
            return image, target
        with seeded(draw.seed):
            return self.transform(image), target


class _Plain(Dataset[Any]):
    """Samples as they are validated."""

    def __init__(self, samples: Samples, transform: Transform) -> None:
        self.samples, self.transform = samples, transform

    def __getitem__(self, index: int) -> tuple[Tensor | Unreadable, int]:
        image, target = self.samples[max(index, 0)]
        if isinstance(image, Unreadable):
            return image, target
        return self.transform(image), target if index >= 0 else NO_TARGET


class _Listed:
    """An iterable that a data loader takes for its batch sampler."""

    def __init__(self, batches: Iterator[list[Draw]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.batches


def _collate(samples: list[tuple[Tensor | Unreadable, int]]) -> Any:
    """A batch, or the first of its images that cannot be read."""
    unreadable = (image for image, _ in samples if isinstance(image, Unreadable))
    return next(unreadable, None) or default_collate(samples)


def _batches(
    samples: Dataset[Any], order: Iterable[Any], workers: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    loader = DataLoader(
        samples,
        batch_sampler=cast(Any, order),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
        prefetch_factor=PREFETCHED if workers else None,
        generator=torch.Generator(),  # the loader's own draw must not move the global one
    )
    batches = iter(loader)
    while True:
        batch = _next(batches)
        if batch is None:
            return
        if isinstance(batch, Unreadable):
            raise batch.error()
        images, targets = batch
        yield images.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def _next(batches: Iterator[Any]) -> Any:
    try:
        return next(batches, None)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a process that reads images died: {error}; often memory ran out: take fewer "
            f"workers, then go on with --resume"
        ) from error
