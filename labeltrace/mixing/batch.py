"""A mixed batch: images, labels over their sources, and the class of every source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from labeltrace.mixing.targets import MixedTargets


@dataclass(frozen=True, eq=False)
class MixedBatch:
    """Mixed images with their label image and the class of every source.

    Attributes:
        images: (B, C, H, W), dtype, device and memory format of the images that were mixed.
        labels: (B, K, H, W), or (B, K, 1, 1) where every position has the same label. Float32, no
            gradient; a distribution over the K sources at each position.
        classes: (B, K) int64, the class index of every source.

    Examples:
        >>> import torch
        >>> from labeltrace import MixUp
        >>> batch = MixUp(partner="flip")(torch.rand(2, 3, 8, 8), torch.tensor([5, 7]))
        >>> batch.classes.tolist()
        [[5, 7], [7, 5]]
        >>> batch.soft_targets(batch.mixing_ratio, num_classes=10).shape
        torch.Size([2, 10])
    """

    images: Tensor
    labels: Tensor
    classes: Tensor

    @property
    def targets(self) -> MixedTargets:
        """The batch without its images, for loops that take images and targets separately."""
        return MixedTargets(self.labels, self.classes)

    @property
    def mixing_ratio(self) -> Tensor:
        """Mean label over the positions, (B, K) float32: lambda and 1 - lambda of eq. 1.

        `soft_targets(batch.mixing_ratio, ...)` is the target of plain CutMix or MixUp.
        """
        return self.targets.mixing_ratio

    def soft_targets(self, labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
        """Turn distributions over sources into class targets; see `MixedTargets.soft_targets`.

        Args:
            labels: (B, K), the labels that an aligned model returned, or `mixing_ratio`.
            num_classes: number of classes that the logits distinguish.
            smoothing: share of the weight that is spread evenly over the classes, in [0, 1).

        Returns:
            (B, num_classes) float32, rows summing to one, no gradient.

        Raises:
            LabelError: labels are no distributions over this batch's sources; classes or smoothing
                are out of range.
        """
        return self.targets.soft_targets(labels, num_classes, smoothing)


BatchMixer = Callable[[Tensor, Tensor], MixedBatch]
"""A mixer of images (B, C, H, W) and class indices (B,), such as `CutMix()`, `RandomChoice([...])`
or `track_mixing(...)`."""
