"""The loss of a micro-batch: mix the images, run the model, make the targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labeltrace.aligned import AlignedModule, align
from labeltrace.errors import TrainingError
from labeltrace.losses import soft_cross_entropy
from labeltrace.mixing import RandomChoice
from labeltrace.mixing.mixer import Mixer
from labeltrace.tracing.ablation import Ablation
from labeltrace.training.recipe import Alignment

Network = Callable[..., Any]

LAST_LAYER = Ablation(last_layer=True, residual=False)  # TransMix in Table 8 of the paper


def align_model(model: nn.Module, alignment: Alignment) -> AlignedModule:
    """The aligned model. Called without labels, it behaves as the plain model."""
    return align(model, ablation=LAST_LAYER if alignment == "last" else None)


@dataclass(frozen=True)
class Objective:
    """The loss of images and their classes.

    Attributes:
        mixer: mixes the images of a micro-batch with each other; None leaves them unmixed.
        moves_labels: whether labels follow the tokens through the model; if not, targets are the
            mixing ratio.
        num_classes: number of classes.
        smoothing: label smoothing.
    """

    mixer: Mixer | RandomChoice | None
    moves_labels: bool
    num_classes: int
    smoothing: float

    def __call__(self, network: Network, images: Tensor, targets: Tensor) -> Tensor:
        """The mean loss over a micro-batch, a scalar.

        Args:
            network: `AlignedModule`, or a wrapper around one.
            images: (B, C, H, W).
            targets: (B,) int64.

        Raises:
            TrainingError: the model's output is not of shape (B, num_classes).
        """
        if self.mixer is None:
            logits = check_logits(network(images), len(images), self.num_classes)
            return F.cross_entropy(logits.float(), targets, label_smoothing=self.smoothing)
        batch = self.mixer(images, targets)
        if self.moves_labels:
            logits, labels = network(batch.images, batch.labels)
        else:
            logits, labels = network(batch.images), batch.mixing_ratio
        logits = check_logits(logits, len(images), self.num_classes)
        soft_targets = batch.soft_targets(labels, self.num_classes, self.smoothing)
        return soft_cross_entropy(logits, soft_targets)


def check_logits(logits: object, batch: int, num_classes: int) -> Tensor:
    """The model's output, after a check that it is logits (batch, num_classes)."""
    if isinstance(logits, Tensor) and logits.shape == torch.Size((batch, num_classes)):
        return logits
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    raise TrainingError(
        f"the model must return logits of shape ({batch}, {num_classes}), for {num_classes} "
        f"classes, got {found}; set the number of its outputs with --model-option"
    )
