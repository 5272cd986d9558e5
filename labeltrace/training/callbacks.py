"""Those who watch a run: a progress bar, TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from labeltrace.errors import TrainingError
from labeltrace.progress import counting_bar
from labeltrace.training.history import EpochResult, Record
from labeltrace.training.train_step import Update
from labeltrace.training.training_state import Machinery

UPDATES_BETWEEN = 10  # of those that TensorBoard is told


class Watcher(AbstractContextManager["Watcher"]):
    """Somebody to tell what happens; this one does not listen."""

    def began(self, run: Machinery, record: Record) -> None:
        """A run begins, or goes on from a record."""

    def updated(self, update: Update) -> None:
        """An update was made."""

    def ended(self, epoch: EpochResult) -> None:
        """An epoch has ended and been evaluated."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The run is over."""


class Together(Watcher):
    """Several watchers as one."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self.watchers, self.stack = watchers, ExitStack()

    def __enter__(self) -> Together:
        for watcher in self.watchers:
            self.stack.enter_context(watcher)
        return self

    def __exit__(self, *details: Any) -> None:
        self.stack.__exit__(*details)

    def began(self, run: Machinery, record: Record) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.began(run, record)

    def updated(self, update: Update) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.updated(update)

    def ended(self, epoch: EpochResult) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.ended(epoch)


class Bar(Watcher):
    """A progress bar over all updates, and a line for every epoch."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = counting_bar(console)
        self.bar = self.progress.add_task("Training", total=None)

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *details: Any) -> None:
        self.progress.stop()

    def began(self, run: Machinery, record: Record) -> None:
        """Start at the record's position."""
        position, each = record.position, run.sampling.updates
        done = position.epoch * each + position.updates
        self.progress.update(self.bar, total=run.sampling.epochs * each, completed=done)

    def updated(self, update: Update) -> None:
        """Move on."""
        self.progress.update(self.bar, advance=1, description=f"loss {update.loss:.3f}")

    def ended(self, epoch: EpochResult) -> None:
        """Say how it went."""
        self.console.print(
            f"epoch {epoch.epoch}: training loss {epoch.training_loss:.3f}, validation loss "
            f"{epoch.validation_loss:.3f}, accuracy {epoch.validation_accuracy:.2%}",
            highlight=False,
        )


class TensorBoard(Watcher):
    """Scalars for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrainingError(
                "TensorBoard is not installed; pip install tensorboard, or pip install "
                "'labeltrace[train]'"
            ) from error
        self.open = lambda step: SummaryWriter(str(folder), purge_step=step)
        self.writer: Any = None

    def began(self, run: Machinery, record: Record) -> None:
        """Forget what a killed run wrote beyond its last checkpoint."""
        position = record.position
        self.writer = self.open(position.epoch * run.sampling.updates + position.updates + 1)

    def updated(self, update: Update) -> None:
        """Write the loss, the gradient's norm and the learning rate of some updates."""
        if update.number % UPDATES_BETWEEN:
            return
        for name in ("loss", "gradient_norm", "learning_rate"):
            self.writer.add_scalar(f"training/{name}", getattr(update, name), update.number)

    def ended(self, epoch: EpochResult) -> None:
        """Write the scores of an epoch."""
        for name in ("validation_loss", "validation_accuracy"):
            tag = name.replace("_", "/", 1)
            self.writer.add_scalar(tag, getattr(epoch, name), epoch.updates)
        self.writer.flush()

    def __exit__(self, *details: Any) -> None:
        if self.writer:
            self.writer.close()
