"""Aligned training with torchvision's reference loop: the collate function that mixes.

It takes the place of the reference's own, `lambda batch: mixup_cutmix(*default_collate(batch))`,
and works with every `DataLoader`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from labeltrace.mixing import MixedTargets
from labeltrace.plugins.mixer_types import BatchMixer


@dataclass(frozen=True)
class MixedCollate:
    """Collate samples, then mix them; for `DataLoader(collate_fn=...)`.

    Workers mix with random states of their own, as `DataLoader` seeds them.

    Attributes:
        mixer: mixes a batch: `labeltrace.CutMix()`, or `track_mixing(v2.RandomChoice([...]))`.
        collate: makes images (B, C, H, W) and class indices (B,) of samples.
    """

    mixer: BatchMixer
    collate: Callable[[list[Any]], Any] = default_collate

    def __call__(self, samples: list[Any]) -> tuple[Tensor, MixedTargets]:
        """Collate and mix.

        Args:
            samples: pairs of an image (C, H, W) and its class index.

        Returns:
            Images (B, C, H, W), and their targets: `.to(device)` moves them, `.labels` goes to
            the aligned model, `.soft_targets(...)` makes class targets of what it returns.

        Raises:
            LabelError: what the mixer refuses.
        """
        images, targets = self.collate(samples)
        batch = self.mixer(images, targets)
        return batch.images, batch.targets
