"""Callbacks of a training run: a progress bar, TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from labeltrace.errors import TrainingError
from labeltrace.progress import counting_bar
from labeltrace.training.history import EpochResult, History
from labeltrace.training.setup import TrainingSetup
from labeltrace.training.train_step import Update

LOG_INTERVAL = 10  # updates between two points in TensorBoard


class Callback(AbstractContextManager["Callback"]):
    """Callbacks for training events. The base class ignores them."""

    def on_start(self, setup: TrainingSetup, history: History) -> None:
        """Called when a run starts or resumes."""

    def on_update(self, update: Update) -> None:
        """Called after every update of the weights."""

    def on_epoch_end(self, epoch: EpochResult) -> None:
        """Called after an epoch was evaluated."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Called when the run ends, with or without an error."""


class CallbackList(Callback):
    """Several callbacks as one; they are called in order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks, self.stack = callbacks, ExitStack()

    def __enter__(self) -> CallbackList:
        for callback in self.callbacks:
            self.stack.enter_context(callback)
        return self

    def __exit__(self, *details: Any) -> None:
        self.stack.__exit__(*details)

    def on_start(self, setup: TrainingSetup, history: History) -> None:
        """Call all."""
        for callback in self.callbacks:
            callback.on_start(setup, history)

    def on_update(self, update: Update) -> None:
        """Call all."""
        for callback in self.callbacks:
            callback.on_update(update)

    def on_epoch_end(self, epoch: EpochResult) -> None:
        """Call all."""
        for callback in self.callbacks:
            callback.on_epoch_end(epoch)


class ProgressBar(Callback):
    """A progress bar over all updates, and a line for every epoch."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = counting_bar(console)
        self.task = self.progress.add_task("Training", total=None)

    def __enter__(self) -> ProgressBar:
        self.progress.start()
        return self

    def __exit__(self, *details: Any) -> None:
        self.progress.stop()

    def on_start(self, setup: TrainingSetup, history: History) -> None:
        """Set the bar to the position of the run."""
        position, per_epoch = history.position, setup.sampling.updates
        done = position.epoch * per_epoch + position.updates
        self.progress.update(self.task, total=setup.sampling.epochs * per_epoch, completed=done)

    def on_update(self, update: Update) -> None:
        """Advance by one update."""
        self.progress.update(self.task, advance=1, description=f"loss {update.loss:.3f}")

    def on_epoch_end(self, epoch: EpochResult) -> None:
        """Print the losses and the accuracy."""
        self.console.print(
            f"epoch {epoch.epoch}: training loss {epoch.training_loss:.3f}, validation loss "
            f"{epoch.validation_loss:.3f}, accuracy {epoch.validation_accuracy:.2%}",
            highlight=False,
        )


class TensorBoard(Callback):
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

    def on_start(self, setup: TrainingSetup, history: History) -> None:
        """Discard what a killed run wrote after its last checkpoint."""
        position = history.position
        self.writer = self.open(position.epoch * setup.sampling.updates + position.updates + 1)

    def on_update(self, update: Update) -> None:
        """Write loss, gradient norm and learning rate of every `LOG_INTERVAL`-th update."""
        if update.number % LOG_INTERVAL:
            return
        for name in ("loss", "gradient_norm", "learning_rate"):
            self.writer.add_scalar(f"training/{name}", getattr(update, name), update.number)

    def on_epoch_end(self, epoch: EpochResult) -> None:
        """Write validation loss and accuracy."""
        for name in ("validation_loss", "validation_accuracy"):
            tag = name.replace("_", "/", 1)
            self.writer.add_scalar(tag, getattr(epoch, name), epoch.updates)
        self.writer.flush()

    def __exit__(self, *details: Any) -> None:
        if self.writer:
            self.writer.close()
