"""Aligned training with the Hugging Face `Trainer`.

The trainer computes the loss, not the model: models of that library interpret floating point
targets as independent classes and switch to binary cross-entropy.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from transformers import Trainer

from labeltrace.aligned import AlignedModule, align
from labeltrace.errors import LabelError
from labeltrace.losses import soft_cross_entropy
from labeltrace.mixing.batch import BatchMixer


class AlignedTrainer(Trainer):
    """A `Trainer` for image classifiers with aligned targets.

    Training batches are mixed on the device; evaluation and prediction use the plain model.
    `TrainingArguments.label_smoothing_factor` smooths the aligned targets. Checkpoints contain the
    plain model.

    Args:
        model: an image classifier of `transformers`, or any module that takes images as
            `main_input_name` (`pixel_values`) and returns `logits`.
        *args: further arguments of `Trainer`.
        mixer: mixes a batch of images (B, C, H, W) and class indices (B,).
        **kwargs: further arguments of `Trainer`.

    Raises:
        LabelError: there are several GPUs in one process.
    """

    # The loss is a mean over one batch; the trainer divides it by the number of accumulated ones.
    loss_is_scaled_for_ga = False

    def __init__(self, model: nn.Module, *args: Any, mixer: BatchMixer, **kwargs: Any) -> None:
        aligned = model if isinstance(model, AlignedModule) else align(model)
        super().__init__(aligned, *args, **kwargs)
        if self.args.n_gpu > 1:
            raise LabelError(
                f"AlignedTrainer: {self.args.n_gpu} GPUs in one process would need copies of the "
                f"model at every step; start one process for each GPU with torchrun or accelerate "
                f"launch, or set CUDA_VISIBLE_DEVICES to a single GPU."
            )
        self.mixer = mixer
        self.model_accepts_loss_kwargs = False
        self._plain = aligned.module
        parameters = inspect.signature(self._plain.forward).parameters
        columns: Any = [*parameters, *self.label_names, "label", "label_ids"]
        self._signature_columns = columns  # otherwise the trainer drops the plain model's columns

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch: with aligned targets in training, otherwise that of the plain model.

        Args:
            model: the aligned model, wrapped by the trainer.
            inputs: images as the model's `main_input_name`, class indices (B,) as `labels`, and
                other inputs of the model.
            return_outputs: return the model's outputs as well.
            num_items_in_batch: not used; the loss is a mean over the batch.

        Returns:
            The loss, a scalar, or the pair of loss and outputs.

        Raises:
            LabelError: the mixer cannot mix the batch.
        """
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        rest = dict(inputs)
        images = rest.pop(getattr(self._plain, "main_input_name", "pixel_values"))
        batch = self.mixer(images, rest.pop("labels"))
        outputs, labels = model(batch.images, batch.labels, **rest)
        logits = outputs["logits"]
        smoothing = self.args.label_smoothing_factor
        soft_targets = batch.soft_targets(labels["logits"], logits.shape[1], smoothing)
        loss = soft_cross_entropy(logits, soft_targets)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the plain model, which has its own names for inputs."""
        with self.accelerator.autocast():
            return super().prediction_step(self._plain, *args, **kwargs)

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        """Save the plain model, with its configuration."""
        aligned, self.model = self.model, self._plain
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.model = aligned
