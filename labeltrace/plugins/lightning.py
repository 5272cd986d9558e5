"""Aligned training with Lightning: a module that mixes batches on the device."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from labeltrace.aligned import AlignedModule, align
from labeltrace.losses import soft_cross_entropy
from labeltrace.mixing import MixedBatch
from labeltrace.mixing.batch import BatchMixer


class AlignedClassifier(LightningModule):
    """A classifier with aligned targets; subclass it and add `configure_optimizers`.

    The loaders yield pairs of images (B, C, H, W) and class indices (B,). `train_loss`, `val_loss`
    and `val_accuracy` are logged. Checkpoints contain the plain model's parameters under `model.`.

    Args:
        model: the model to train; aligned if it is not yet.
        mixer: mixes the batches of the training loader, on the device.
        smoothing: label smoothing as in timm and DeiT.
    """

    def __init__(self, model: nn.Module, mixer: BatchMixer, smoothing: float = 0.0) -> None:
        super().__init__()
        self.model = model if isinstance(model, AlignedModule) else align(model)
        self.mixer = mixer
        self.smoothing = smoothing

    def forward(self, images: Tensor) -> Tensor:
        """The plain model's logits."""
        logits: Tensor = self.model(images)
        return logits

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Mix training batches; return other batches unchanged.

        Raises:
            LabelError: the mixer cannot mix a batch.
        """
        if not self.trainer.training:
            return batch
        images, targets = batch
        return self.mixer(images, targets)

    def training_step(self, batch: MixedBatch, batch_idx: int) -> Tensor:
        """The loss of one mixed batch with its aligned targets."""
        logits, labels = self.model(batch.images, batch.labels)
        soft_targets = batch.soft_targets(labels, logits.shape[1], self.smoothing)
        loss = soft_cross_entropy(logits, soft_targets)
        self.log("train_loss", loss, batch_size=len(logits))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy of the plain model on unmixed images."""
        images, targets = batch
        logits = self.model(images)
        loss = torch.nn.functional.cross_entropy(logits, targets)
        accuracy = (logits.argmax(1) == targets).float().mean()
        self.log_dict({"val_loss": loss, "val_accuracy": accuracy}, batch_size=len(logits))
