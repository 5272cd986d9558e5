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
from labeltrace.training.parallel import gradient_sync_context
from labeltrace.training.precision import autocast
from labeltrace.training.seeds import derive_seed, seed_everything
from labeltrace.training.setup import TrainingSetup
from labeltrace.training.training_state import TrainingState


@dataclass(frozen=True)
class Update:
    """The numbers of one update.

    Attributes:
        number: its number since the start of the run, from one.
        loss: mean over the micro-batches of this process, before the update.
        gradient_norm: norm of the averaged gradient, before clipping.
        learning_rate: the learning rate of the update.
    """

    number: int
    loss: float
    gradient_norm: float
    learning_rate: float


def make_update(
    setup: TrainingSetup,
    state: TrainingState,
    batches: Iterator[tuple[Tensor, Tensor]],
    number: int,
) -> Update:
    """Accumulate the gradient of this process's micro-batches, then update the weights.

    Raises:
        TrainingError: the loss or the gradient is infinite or NaN; the weights are unchanged.
    """
    loss = _accumulate_gradients(setup, state, batches, number)
    state.scaler.unscale_(state.optimizer)
    norm = _clip_gradient(state, setup.recipe.optimizer.clip_norm)
    loss_value, norm_value = torch.stack([loss, norm]).tolist()  # the one host synchronization
    _check_finite(setup, state, loss_value, norm_value, number)
    learning_rate = state.optimizer.param_groups[0]["lr"]
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    if state.scheduler:
        state.scheduler.step_update(number)
    if state.average:
        state.average.update(state.aligned.module, step=number)
    return Update(number, loss_value, norm_value, learning_rate)


def _accumulate_gradients(
    setup: TrainingSetup,
    state: TrainingState,
    batches: Iterator[tuple[Tensor, Tensor]],
    number: int,
) -> Tensor:
    """Add up the gradient in the parameters; return the mean loss over the micro-batches."""
    recipe, device = setup.recipe, setup.processes.device
    total = torch.zeros((), device=device)
    for index in setup.micro_batches:
        images, targets = next(batches)
        seed_everything(derive_seed(recipe.seed, "part", number, index))
        with gradient_sync_context(state.network, is_last=index == setup.micro_batches[-1]):
            with autocast(recipe.precision, device):
                loss = setup.objective(state.network, images, targets) / recipe.accumulation
            state.scaler.scale(loss).backward()
        total = total + loss.detach()
    return total


def _clip_gradient(state: TrainingState, clip_norm: float | None) -> Tensor:
    """Clip the gradient to `clip_norm`, if given; return its norm before clipping."""
    parameters = [p for p in state.aligned.parameters() if p.grad is not None]
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    if clip_norm is not None:
        clip_grads_with_norm_(parameters, clip_norm, norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _check_finite(
    setup: TrainingSetup, state: TrainingState, loss: float, norm: float, number: int
) -> None:
    skips = state.scaler.is_enabled()  # the scaler skips updates with an infinite gradient
    faulty = "loss" if not math.isfinite(loss) else "gradient"
    if math.isfinite(loss) and (skips or math.isfinite(norm)):
        return
    epoch, index = divmod(number - 1, setup.sampling.updates)
    value = loss if faulty == "loss" else norm
    raise TrainingError(
        f"the {faulty} is {value} in update {index + 1} of epoch {epoch + 1}, at learning rate "
        f"{state.optimizer.param_groups[0]['lr']:.3g} and precision {setup.recipe.precision}; the "
        f"last checkpoint was written before that. Try a lower learning rate, a longer warm-up, "
        f"gradient clipping or a wider precision"
    )
