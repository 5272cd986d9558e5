"""One update of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from labeltrace.errors import TrainingError
from labeltrace.training.parallel import for_part
from labeltrace.training.precision import autocast
from labeltrace.training.seeds import seed_everything, seed_of
from labeltrace.training.training_state import Machinery


@dataclass(frozen=True)
class Update:
    """What an update found.

    Attributes:
        number: of this update, from one.
        loss: mean over the parts of this process, before the update.
        gradient_norm: of the averaged gradient, before it was clipped.
        learning_rate: that it was made with.
    """

    number: int
    loss: float
    gradient_norm: float
    learning_rate: float


def update(run: Machinery, batches: Iterator[tuple[Tensor, Tensor]], number: int) -> Update:
    """Go through this process's parts of a batch, then change the weights.

    Raises:
        TrainingError: the loss or the gradient is infinite or NaN; the weights stay as they were.
    """
    loss = _gradients(run, batches, number)
    run.scaler.unscale_(run.optimizer)
    norm = _clipped(run)
    loss_value, norm_value = torch.stack([loss, norm]).tolist()  # the one host synchronisation
    _check_finite(run, loss_value, norm_value, number)
    learning_rate = run.optimizer.param_groups[0]["lr"]
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad()
    if run.scheduler:
        run.scheduler.step_update(number)
    if run.average:
        run.average.update(run.aligned.module, step=number)
    return Update(number, loss_value, norm_value, learning_rate)


def _gradients(run: Machinery, batches: Iterator[tuple[Tensor, Tensor]], number: int) -> Tensor:
    """Leave the gradient in the parameters; return the mean loss over the parts."""
    recipe = run.recipe
    total = torch.zeros((), device=run.processes.device)
    for part in run.own_parts:
        images, targets = next(batches)
        seed_everything(seed_of(recipe.seed, "part", number, part))
        with for_part(run.network, part == run.own_parts[-1]):
            with autocast(recipe.precision, run.processes.device):
                loss = run.objective(run.network, images, targets) / recipe.accumulation
            run.scaler.scale(loss).backward()
        total = total + loss.detach()
    return total


def _clipped(run: Machinery) -> Tensor:
    """Clip the gradient, if the recipe says so; return the norm that it had."""
    parameters = [p for p in run.aligned.parameters() if p.grad is not None]
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    if run.recipe.optimizer.clip_norm is not None:
        clip_grads_with_norm_(parameters, run.recipe.optimizer.clip_norm, norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _check_finite(run: Machinery, loss: float, norm: float, number: int) -> None:
    scales = run.scaler.is_enabled()  # then an update with such a gradient is left out
    faulty = "loss" if not math.isfinite(loss) else "gradient"
    if math.isfinite(loss) and (scales or math.isfinite(norm)):
        return
    epoch, within = divmod(number - 1, run.sampling.updates)
    value = loss if faulty == "loss" else norm
    raise TrainingError(
        f"the {faulty} is {value} in update {within + 1} of epoch {epoch + 1}, at learning rate "
        f"{run.optimizer.param_groups[0]['lr']:.3g} and precision {run.recipe.precision}; the last "
        f"checkpoint is from before. A lower learning rate, a longer warm-up, clipping or a wider "
        f"precision may help"
    )
