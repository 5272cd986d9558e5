"""Loss and accuracy on the validation images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labeltrace.training.distributed import Processes
from labeltrace.training.loading import NO_TARGET
from labeltrace.training.objective import check_logits
from labeltrace.training.precision import autocast
from labeltrace.training.recipe import Precision


@dataclass(frozen=True)
class Score:
    """Scores on the validation images.

    Attributes:
        loss: mean cross-entropy in nats.
        accuracy: share of the images whose class has the largest logit.
        images: number of images.
    """

    loss: float
    accuracy: float
    images: int


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    precision: Precision,
    processes: Processes,
) -> Score:
    """Evaluate a model in eval mode; each process evaluates its share of the images."""
    model.eval()
    loss = correct = count = torch.zeros((), device=processes.device)
    for images, targets in batches:
        with autocast(precision, processes.device):
            logits = check_logits(model(images), len(images), num_classes).float()
        loss = loss + F.cross_entropy(logits, targets, ignore_index=NO_TARGET, reduction="sum")
        correct = correct + (logits.argmax(dim=1) == targets).sum()
        count = count + (targets != NO_TARGET).sum()
    total = processes.sum_across([loss.item(), correct.item(), count.item()])
    return Score(total[0] / total[2], total[1] / total[2], round(total[2]))
