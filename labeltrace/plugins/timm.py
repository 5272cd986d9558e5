"""Aligned training with timm: a task, and mixers for both places where timm's loop mixes.

The loop of timm's `train.py` creates a loader, a mixer and a task; it then calls
`task(input, target)` and uses `["loss"]`. The mixers in this module return `MixedTargets`, with the
label image of the batch. The task runs the aligned model on them and computes class targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.data.loader import fast_collate
from timm.data.mixup import FastCollateMixup
from timm.task import ClassificationTask
from torch import Tensor, nn

from labeltrace.aligned import AlignedModule, align
from labeltrace.errors import LabelError
from labeltrace.mixing import MixedTargets
from labeltrace.mixing.batch import BatchMixer


class AlignedMixup:
    """Replaces timm's `Mixup`, for loops that mix batches themselves.

    Attributes:
        mixer: mixes a batch: `labeltrace.CutMix()`, or `track_mixing(timm.data.Mixup(...))`.
        mixup_enabled: timm's switch: if false, images are not mixed.
    """

    def __init__(self, mixer: BatchMixer) -> None:
        self.mixer = mixer
        self.mixup_enabled = True

    def __call__(self, x: Tensor, target: Tensor) -> tuple[Tensor, MixedTargets]:
        """Mix a batch.

        Args:
            x: (B, C, H, W), floating point.
            target: (B,) class indices.

        Returns:
            Images of the same shape and dtype, and their targets.

        Raises:
            LabelError: the mixer cannot mix the batch.
        """
        if not self.mixup_enabled:
            return x, MixedTargets.unmixed(target)
        batch = self.mixer(x, target)
        return batch.images, batch.targets


class AlignedCollate(FastCollateMixup):
    """Replaces timm's `FastCollateMixup`, for loaders whose workers mix.

    It is a subclass of `FastCollateMixup` because timm's loader passes `mixup_enabled` on only to
    that type. Images are blended in float32 and rounded, as in timm.

    Attributes:
        mixer: mixes a batch.
        mixup_enabled: timm's switch: if false, images are not mixed.
    """

    def __init__(self, mixer: BatchMixer) -> None:
        # FastCollateMixup.__init__ is not called: it sets up a mixer that is not used here.
        self.mixer = mixer
        self.mixup_enabled = True

    def __call__(self, batch: Sequence[Any], _: object = None) -> tuple[Tensor, MixedTargets]:
        """Collate samples and mix them.

        Args:
            batch: pairs of an image, (C, H, W) uint8, NumPy array or tensor, and its class index.

        Returns:
            Images (B, C, H, W) uint8, and their targets.

        Raises:
            LabelError: the mixer cannot mix the batch.
        """
        images, targets = fast_collate(batch)
        if not self.mixup_enabled:
            return images, MixedTargets.unmixed(targets)
        mixed = self.mixer(images.float(), targets)
        return mixed.images.round_().to(torch.uint8), mixed.targets


class AlignedClassificationTask(ClassificationTask):
    """timm's `ClassificationTask` with aligned targets.

    The model is aligned if it is not yet. Checkpoints, EMA and distributed training use the plain
    model's parameters under their own names.

    Args:
        model: the model to train.
        criterion: a loss of logits (B, C) and class distributions (B, C); None creates it from
            `criterion_kwargs`.
        criterion_kwargs: arguments of timm's `create_classification_loss`.
        smoothing: label smoothing as in timm and DeiT; it is applied to the targets.
        device: device of the task's own tensors.
        dtype: dtype of the task's own tensors.
        verbose: log the criterion.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module | Callable[[Tensor, Tensor], Tensor] | None = None,
        criterion_kwargs: Mapping[str, Any] | None = None,
        smoothing: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ) -> None:
        if criterion is None:
            criterion_kwargs = {"soft_targets": True, **(criterion_kwargs or {})}
        super().__init__(
            model if isinstance(model, AlignedModule) else align(model),
            criterion,
            dict(criterion_kwargs) if criterion_kwargs else None,
            device,
            dtype,
            verbose,
        )
        self.smoothing = smoothing

    def forward(self, input: Tensor, target: Tensor | MixedTargets) -> dict[str, Tensor]:
        """Loss and logits of one mixed batch.

        Args:
            input: images (B, C, H, W).
            target: the targets that `AlignedMixup` or `AlignedCollate` returned with them.

        Returns:
            `loss`, a scalar, and `output`, the logits (B, C).

        Raises:
            LabelError: the targets are not `MixedTargets`.
        """
        if not isinstance(target, MixedTargets):
            raise LabelError(
                f"AlignedClassificationTask: target must be MixedTargets, got "
                f"{type(target).__name__}; mix with AlignedCollate as the loader's collate_fn, or "
                f"with AlignedMixup on its batches (mixup_enabled=False leaves them unmixed)."
            )
        output, labels = self.trainable_module(input, target.labels)
        soft_targets = target.soft_targets(labels, output.shape[1], self.smoothing)
        return {"loss": self.criterion(output, soft_targets), "output": output}
