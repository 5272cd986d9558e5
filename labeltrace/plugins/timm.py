"""Aligned training with timm: a task, and mixers for both places where timm's loop mixes.

The loop of timm's `train.py` makes a loader, a mixer and a task; it then calls
`task(input, target)` and takes `["loss"]`.  The mixers here hand it targets that know where
each source went, and the task makes class targets of them when the model has said what became of
them.
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
from labeltrace.plugins.mixer_types import BatchMixer


class AlignedMixup:
    """A mixer in the place of timm's `Mixup`, where the loop mixes batches itself.

    Attributes:
        mixer: mixes a batch: `labeltrace.CutMix()`, or `track_mixing(timm.data.Mixup(...))`.
        mixup_enabled: timm's switch: false leaves images as they are.
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
            LabelError: what the mixer refuses.
        """
        if not self.mixup_enabled:
            return x, MixedTargets.unmixed(target)
        batch = self.mixer(x, target)
        return batch.images, batch.targets


class AlignedCollate(FastCollateMixup):
    """A mixer in the place of timm's `FastCollateMixup`, where the loader's workers mix.

    It is a `FastCollateMixup` for the sake of timm's loader, which asks for that type before it
    passes `mixup_enabled` on.  Images are blended in float32 and rounded, as timm does.

    Attributes:
        mixer: mixes a batch.
        mixup_enabled: timm's switch: false leaves images as they are.
    """

    def __init__(self, mixer: BatchMixer) -> None:
        # Not FastCollateMixup's own: its settings are those of a mixer that is not used here.
        self.mixer = mixer
        self.mixup_enabled = True

    def __call__(self, batch: Sequence[Any], _: object = None) -> tuple[Tensor, MixedTargets]:
        """Collate samples and mix them.

        Args:
            batch: pairs of an image, (C, H, W) uint8, NumPy array or tensor, and its class index.

        Returns:
            Images (B, C, H, W) uint8, and their targets.

        Raises:
            LabelError: what the mixer refuses.
        """
        images, targets = fast_collate(batch)
        if not self.mixup_enabled:
            return images, MixedTargets.unmixed(targets)
        mixed = self.mixer(images.float(), targets)
        return mixed.images.round_().to(torch.uint8), mixed.targets


class AlignedClassificationTask(ClassificationTask):
    """timm's `ClassificationTask` with aligned targets.

    The model is aligned where it is not yet.  Checkpoints, EMA and distributed training work on the
    plain model's parameters under their own names.

    Args:
        model: the model to train.
        criterion: takes logits (B, C) and class distributions (B, C); made from
            `criterion_kwargs` where None.
        criterion_kwargs: arguments of timm's `create_classification_loss`.
        smoothing: label smoothing, timm's and DeiT's; here it is part of the targets.
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
            target: what `AlignedMixup` or `AlignedCollate` returned beside them.

        Returns:
            `loss`, a scalar, and `output`, the logits (B, C).

        Raises:
            LabelError: targets that do not say where the sources are.
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
