"""Aligned training with torchvision's reference loop: a collate function that mixes.

It replaces the reference's collate function, `lambda batch: mixup_cutmix(*default_collate(batch))`,
and works with every `DataLoader`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from labeltrace.mixing import MixedTargets
from labeltrace.mixing.batch import BatchMixer


@dataclass(frozen=True)
class MixedCollate:
    """Collate samples, then mix them; for `DataLoader(collate_fn=...)`.

    Each worker mixes with its own random state, seeded by `DataLoader`.

    Attributes:
        mixer: mixes a batch: `labeltrace.CutMix()`, or `track_mixing(v2.RandomChoice([...]))`.
        collate: collates samples to images (B, C, H, W) and class indices (B,).
    """

    mixer: BatchMixer
    collate: Callable[[list[Any]], Any] = default_collate

    def __call__(self, samples: list[Any]) -> tuple[Tensor, MixedTargets]:
        """Collate and mix.

        Args:
            samples: pairs of an image (C, H, W) and its class index.

        Returns:
            Images (B, C, H, W), and their targets: `.to(device)` moves them, `.labels` is the label
            image for the aligned model, `.soft_targets(...)` turns the labels that the model
            returns into class targets.

        Raises:
            LabelError: the mixer cannot mix the batch.
        """
        images, targets = self.collate(samples)
        batch = self.mixer(images, targets)
        return batch.images, batch.targets
