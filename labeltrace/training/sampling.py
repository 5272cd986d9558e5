"""The order of the samples. It depends on the recipe only, not on the number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from labeltrace.errors import TrainingError
from labeltrace.training.seeds import derive_seed


class Draw(NamedTuple):
    """One sample of an epoch: the index of its image, and the seed of its augmentation."""

    image: int
    seed: int


class Position(NamedTuple):
    """A position in a run: after `updates` updates of `epoch`, counted from zero."""

    epoch: int
    updates: int


@dataclass(frozen=True)
class Sampling:
    """The order of all samples of a run.

    The samples of a batch are assigned to its micro-batches in turn: micro-batch m of M has the
    samples m, m + M, m + 2M … Copies of an image follow each other in a batch, so they are assigned
    to different micro-batches.

    Attributes:
        samples: number of images.
        batch: images in one update.
        micro_batches: number of equal micro-batches in a batch, over all processes.
        epochs: number of epochs.
        repeats: how often an image is drawn in an epoch that draws it.
        seed: the seed of the recipe.

    Raises:
        TrainingError: the batch cannot be divided evenly, or there are fewer images than a batch.
    """

    samples: int
    batch: int
    micro_batches: int
    epochs: int
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch % self.micro_batches:
            raise TrainingError(
                f"a batch of {self.batch} images cannot be cut into {self.micro_batches} equal "
                f"parts (processes times accumulation); choose a multiple of {self.micro_batches}"
            )
        if self.samples < self.batch:
            raise TrainingError(
                f"there are {self.samples} training images, fewer than a batch of {self.batch}; "
                f"choose a smaller batch"
            )

    @property
    def updates(self) -> int:
        """Number of updates in an epoch; the images of an incomplete last batch are not used."""
        return self.samples // self.batch

    def draws(self, epoch: int) -> list[Draw]:
        """The samples of an epoch in order."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        order = torch.randperm(self.samples, generator=generator).repeat_interleave(self.repeats)
        return [
            Draw(image, derive_seed(self.seed, "sample", epoch, index))
            for index, image in enumerate(order[: self.updates * self.batch].tolist())
        ]

    def batches(self, position: Position, micro_batches: range) -> Iterator[list[Draw]]:
        """The selected micro-batches of every batch after a position, in order.

        Args:
            position: where the run starts or resumes.
            micro_batches: indices of the micro-batches of each batch that are yielded.
        """
        first = position.updates
        for epoch in range(position.epoch, self.epochs):
            draws = self.draws(epoch)
            for update in range(first, self.updates):
                batch = draws[update * self.batch : (update + 1) * self.batch]
                yield from (batch[index :: self.micro_batches] for index in micro_batches)
            first = 0


def process_batches(samples: int, batch: int, process: int, processes: int) -> list[list[int]]:
    """The batches of one process: its share of the sample indices in order.

    All processes have the same number of samples; index -1 fills up a share that is one short.

    Args:
        samples: number of samples.
        batch: samples in a batch.
        process: index of the process.
        processes: number of processes.
    """
    share = list(range(process, samples, processes))
    share += [-1] * (-(-samples // processes) - len(share))
    return [share[first : first + batch] for first in range(0, len(share), batch)]
