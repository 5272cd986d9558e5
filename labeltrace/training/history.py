"""The position of a run and the results of its epochs."""

from __future__ import annotations

import csv
import dataclasses
import io
from dataclasses import dataclass

from labeltrace.training.sampling import Position

START = Position(epoch=0, updates=0)


@dataclass(frozen=True)
class EpochResult:
    """The results of one epoch.

    Attributes:
        epoch: its number, from one.
        updates: number of updates since the start of the run.
        learning_rate: learning rate of its last update.
        training_loss: mean loss of its updates, on mixed images and soft targets, in nats.
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
class History:
    """The history of a run up to a position.

    Attributes:
        position: the position of the run.
        loss_sum: sum of the losses in the unfinished epoch.
        epochs: results of the finished epochs.
    """

    position: Position = START
    loss_sum: float = 0.0
    epochs: tuple[EpochResult, ...] = ()

    @property
    def best(self) -> EpochResult | None:
        """The first epoch with the highest accuracy; None before the first epoch has ended."""
        return max(self.epochs, key=lambda epoch: epoch.validation_accuracy, default=None)

    def as_csv(self) -> str:
        """The epochs as CSV with a header line."""
        names = [field.name for field in dataclasses.fields(EpochResult)]
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(epoch) for epoch in self.epochs)
        return text.getvalue()
