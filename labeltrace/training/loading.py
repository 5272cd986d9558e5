"""Batches of augmented images, loaded by torch's data loader."""

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
from labeltrace.training.distributed import Processes
from labeltrace.training.images import Images, Samples, Unreadable
from labeltrace.training.recipe import DataSettings
from labeltrace.training.sampling import Draw, Position, Sampling, process_batches
from labeltrace.training.seeds import seeded

Transform = Callable[[Image.Image], Tensor]
NO_TARGET = -1  # target of a sample that only fills up a batch
PREFETCH_FACTOR = 2  # batches that each worker loads ahead


def training_batches(
    images: Images,
    loaded: LoadedModel,
    settings: DataSettings,
    sampling: Sampling,
    position: Position,
    micro_batches: range,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The remaining micro-batches of a run, augmented: images (B, 3, H, W), targets (B,) int64.

    Raises:
        TrainingError: an image cannot be read, or a worker died.
    """
    transform = _training_transform(loaded, settings)
    samples = _TrainingDataset(images.training, transform)
    order = _BatchSampler(sampling.batches(position, micro_batches))
    return _load_batches(samples, order, settings.workers, device)


def validation_batches(
    images: Images,
    loaded: LoadedModel,
    settings: DataSettings,
    batch: int,
    processes: Processes,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The validation images of one process: images (B, 3, H, W), targets (B,) int64.

    A sample that only fills up a batch has the target `NO_TARGET`.

    Raises:
        TrainingError: an image cannot be read, or a worker died.
    """
    samples = _ValidationDataset(images.validation, _validation_transform(loaded, settings))
    order = process_batches(len(images.validation), batch, processes.index, processes.count)
    return _load_batches(samples, order, settings.workers, processes.device)


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


class _TrainingDataset(Dataset[Any]):
    """Training samples, each augmented with the seed of its draw."""

    def __init__(self, samples: Samples, transform: Transform) -> None:
        self.samples, self.transform = samples, transform

    def __getitem__(self, draw: Draw) -> tuple[Tensor | Unreadable, int]:
        image, target = self.samples[draw.image]
        if isinstance(image, Unreadable):
            return image, target
        with seeded(draw.seed):
            return self.transform(image), target


class _ValidationDataset(Dataset[Any]):
    """Validation samples; index -1 gives a sample without a target."""

    def __init__(self, samples: Samples, transform: Transform) -> None:
        self.samples, self.transform = samples, transform

    def __getitem__(self, index: int) -> tuple[Tensor | Unreadable, int]:
        image, target = self.samples[max(index, 0)]
        if isinstance(image, Unreadable):
            return image, target
        return self.transform(image), target if index >= 0 else NO_TARGET


class _BatchSampler:
    """Makes an iterator usable as the batch sampler of a data loader."""

    def __init__(self, batches: Iterator[list[Draw]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.batches


def _collate(samples: list[tuple[Tensor | Unreadable, int]]) -> Any:
    """A batch, or the first unreadable image in it."""
    unreadable = (image for image, _ in samples if isinstance(image, Unreadable))
    return next(unreadable, None) or default_collate(samples)


def _load_batches(
    samples: Dataset[Any], order: Iterable[Any], workers: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    loader = DataLoader(
        samples,
        batch_sampler=cast(Any, order),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
        prefetch_factor=PREFETCH_FACTOR if workers else None,
        generator=torch.Generator(),  # the loader draws once; keep the global generator unchanged
    )
    batches = iter(loader)
    while True:
        batch = _next_batch(batches)
        if batch is None:
            return
        if isinstance(batch, Unreadable):
            raise batch.error()
        images, targets = batch
        yield images.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def _next_batch(batches: Iterator[Any]) -> Any:
    try:
        return next(batches, None)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a process that reads images died: {error}; the usual cause is lack of memory. Set "
            f"fewer workers, then continue with --resume"
        ) from error
