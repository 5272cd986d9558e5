"""A mixed batch: images, labels over their sources, and the class targets made of those labels."""

from __future__ import annotations

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
    """

    images: Tensor
    labels: Tensor
    classes: Tensor

    @property
    def targets(self) -> MixedTargets:
        """The batch without its images, for loops that want those apart."""
        return MixedTargets(self.labels, self.classes)

    @property
    def mixing_ratio(self) -> Tensor:
        """Mean label over the positions, (B, K) float32: lambda and 1 - lambda of eq. 1.

        `soft_targets(batch.mixing_ratio, ...)` is the target of plain CutMix or MixUp.
        """
        return self.targets.mixing_ratio

    def soft_targets(self, labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
        """Turn distributions over sources into class targets, as `MixedTargets.soft_targets` does.

        Args:
            labels: (B, K), what an aligned model returned beside its logits, or `mixing_ratio`.
            num_classes: number of classes that the logits distinguish.
            smoothing: share of the weight that is spread evenly, in [0, 1).

        Returns:
            (B, num_classes) float32, rows summing to one, no gradient.

        Raises:
            LabelError: labels that are no distributions over this batch's sources, classes or
                smoothing out of range.
        """
        return self.targets.soft_targets(labels, num_classes, smoothing)
