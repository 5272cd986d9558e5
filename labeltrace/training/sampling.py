"""Which samples make up which part of a run: decided by the recipe, not by who asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from labeltrace.errors import TrainingError
from labeltrace.training.seeds import seed_of


class Draw(NamedTuple):
    """One sample of an epoch: which image, and the seed that it is augmented by."""

    image: int
    seed: int


class Position(NamedTuple):
    """Where a run is: `updates` have been made in `epoch`, counted from zero."""

    epoch: int
    updates: int


@dataclass(frozen=True)
class Sampling:
    """The order of all samples of a run.

    A batch is dealt out to its parts one sample after the other, as cards are: part m of M has the
    samples m, m + M, m + 2M … Copies of an image, which follow each other, go to different parts.

    Attributes:
        samples: number of images.
        batch: images of one update.
        parts: into how many equal parts a batch is cut, over all processes.
        epochs: number of epochs.
        repeats: how often an image is drawn in the epochs that draw it.
        seed: the recipe's.

    Raises:
        TrainingError: the batch cannot be cut so, or there are fewer images than it has.
    """

    samples: int
    batch: int
    parts: int
    epochs: int
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch % self.parts:
            raise TrainingError(
                f"a batch of {self.batch} images cannot be cut into {self.parts} equal parts "
                f"(processes times accumulation); choose a multiple of {self.parts}"
            )
        if self.samples < self.batch:
            raise TrainingError(
                f"there are {self.samples} training images, fewer than a batch of {self.batch}; "
                f"choose a smaller batch"
            )

    @property
    def updates(self) -> int:
        """Updates of an epoch; images left over at its end are not used in it."""
        return self.samples // self.batch

    def draws(self, epoch: int) -> list[Draw]:
        """The samples of an epoch in order."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", epoch))
        order = torch.randperm(self.samples, generator=generator).repeat_interleave(self.repeats)
        return [
            Draw(image, seed_of(self.seed, "sample", epoch, place))
            for place, image in enumerate(order[: self.updates * self.batch].tolist())
        ]

    def batches(self, position: Position, parts: range) -> Iterator[list[Draw]]:
        """What is left of the run from a position on, part by part, of these parts alone."""
        first = position.updates
        for epoch in range(position.epoch, self.epochs):
            draws = self.draws(epoch)
            for update in range(first, self.updates):
                batch = draws[update * self.batch : (update + 1) * self.batch]
                yield from (batch[part :: self.parts] for part in parts)
            first = 0


def shares_of(samples: int, batch: int, process: int, processes: int) -> list[list[int]]:
    """The batches of one process that goes through its share of all samples in order.

    All processes have equally many: -1 stands for a sample that is none.
    """
    share = list(range(process, samples, processes))
    share += [-1] * (-(-samples // processes) - len(share))
    return [share[first : first + batch] for first in range(0, len(share), batch)]
