"""How far a run is, and what came out so far."""

from __future__ import annotations

import csv
import dataclasses
import io
from dataclasses import dataclass

from labeltrace.training.sampling import Position

START = Position(epoch=0, updates=0)


@dataclass(frozen=True)
class EpochResult:
    """One epoch.

    Attributes:
        epoch: its number, from one.
        updates: updates made since the run began.
        learning_rate: of its last update.
        training_loss: mean over its updates, of mixed images and soft targets, in nats.
        validation_loss: mean cross-entropy in nats.
        validation_accuracy: in [0, 1].
        seconds: wall time, evaluation included.
    """

    epoch: int
    updates: int
    learning_rate: float
    training_loss: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Record:
    """A run up to a position.

    Attributes:
        position: where the run is.
        loss_sum: of the losses of the updates of the unfinished epoch.
        epochs: the finished ones.
    """

    position: Position = START
    loss_sum: float = 0.0
    epochs: tuple[EpochResult, ...] = ()

    @property
    def best(self) -> EpochResult | None:
        """The first epoch of the highest accuracy; None before any has ended."""
        return max(self.epochs, key=lambda epoch: epoch.validation_accuracy, default=None)

    def as_csv(self) -> str:
        """The epochs as a table with a head."""
        names = [field.name for field in dataclasses.fields(EpochResult)]
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(epoch) for epoch in self.epochs)
        return text.getvalue()
