"""The targets of a mixed batch: labels over sources, and the class of every source."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from labeltrace.errors import LabelError

ROW_SUM_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class MixedTargets:
    """The targets of mixed images; they replace class indices in a training loop.

    Attributes:
        labels: (B, K, H, W), or (B, K, 1, 1) where every position has the same label. Float32, no
            gradient; a distribution over the K sources at each position.
        classes: (B, K) int64, the class index of every source.
    """

    labels: Tensor
    classes: Tensor

    @classmethod
    def unmixed(cls, targets: Tensor) -> MixedTargets:
        """The targets of images that were not mixed: both sources are the image itself.

        Args:
            targets: (B,) class indices, any integer dtype.
        """
        classes = targets.long()[:, None].expand(-1, 2).contiguous()
        labels = torch.tensor([1.0, 0.0], device=targets.device).reshape(1, 2, 1, 1)
        return cls(labels.repeat(len(targets), 1, 1, 1), classes)

    @property
    def mixing_ratio(self) -> Tensor:
        """Mean label over the positions, (B, K) float32: lambda and 1 - lambda of eq. 1.

        `soft_targets(mixing_ratio, ...)` is the target of plain CutMix or MixUp.
        """
        return self.labels.flatten(start_dim=2).mean(dim=2)

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> MixedTargets:
        """Move to a device, like `torch.Tensor.to`; data types do not change."""
        labels = self.labels.to(device, non_blocking=non_blocking)
        return MixedTargets(labels, self.classes.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> MixedTargets:
        """Pin the memory of both tensors; `DataLoader(pin_memory=True)` calls this."""
        return MixedTargets(self.labels.pin_memory(), self.classes.pin_memory())

    def soft_targets(self, labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
        """Turn distributions over sources into distributions over classes.

        The weights of sources of the same class add up. Label smoothing is that of timm and DeiT: a
        source of weight one gives its class `1 - smoothing + smoothing / num_classes`, and every
        other class `smoothing / num_classes`.

        The checks on values cost one host synchronization on an accelerator.

        Args:
            labels: (B, K) floating point, rows summing to one: the labels that an aligned model
                returns with its logits, or `mixing_ratio`.
            num_classes: number of classes that the logits distinguish.
            smoothing: share of the weight that is spread evenly over the classes, in [0, 1).

        Returns:
            (B, num_classes) float32, rows summing to one, no gradient.

        Raises:
            LabelError: labels have the wrong shape, dtype or device, are negative or NaN, or have
                rows that do not sum to one within 1e-4; a class index is outside
                0 … num_classes - 1; num_classes is below one; smoothing is outside [0, 1).
        """
        self._check_labels(labels)
        if num_classes < 1:
            raise LabelError(
                f"soft_targets: num_classes must be at least 1, got {num_classes}; pass the number "
                f"of the model's outputs."
            )
        if not 0 <= smoothing < 1:
            raise LabelError(
                f"soft_targets: smoothing must be in [0, 1), got {smoothing}; 0.1 is usual."
            )
        labels = labels.detach().float()
        self._check_values(labels, num_classes)
        targets = labels.new_zeros(labels.shape[0], num_classes)
        targets.scatter_add_(1, self.classes, labels)
        return targets.mul_(1 - smoothing).add_(smoothing / num_classes)

    def _check_labels(self, labels: Tensor) -> None:
        if labels.shape != self.classes.shape:
            raise LabelError(
                f"soft_targets: labels must be (B, K) = {tuple(self.classes.shape)}, got "
                f"{tuple(labels.shape)}; pass the labels that the aligned model returned for this "
                f"batch, or mixing_ratio for the target without alignment."
            )
        if not labels.is_floating_point():
            raise LabelError(
                f"soft_targets: labels must be floating point, got {labels.dtype}; pass "
                f"distributions over sources, not class indices."
            )
        if labels.device != self.classes.device:
            raise LabelError(
                f"soft_targets: labels are on {labels.device}, the batch's classes on "
                f"{self.classes.device}; mix on the device that the model runs on."
            )

    def _check_values(self, labels: Tensor, num_classes: int) -> None:
        wrong_class = (self.classes < 0) | (self.classes >= num_classes)
        # Comparisons with NaN are false, so each test is written to pass good values only.
        wrong_entry = ~(labels >= 0)
        wrong_sum = ~((labels.sum(dim=1) - 1).abs() <= ROW_SUM_TOLERANCE)
        wrong = torch.stack([wrong_class.any(dim=1), wrong_entry.any(dim=1), wrong_sum])
        is_wrong = wrong.any(dim=1).tolist()  # the one host synchronization
        if not any(is_wrong):
            return

        kind = is_wrong.index(True)
        row = wrong[kind].tolist().index(True)
        if kind == 0:
            raise LabelError(
                f"soft_targets: image {row} has sources of classes {self.classes[row].tolist()}, "
                f"outside 0 … {num_classes - 1}; num_classes={num_classes} must cover every "
                f"class of the data set."
            )
        fault = "holds a negative number or NaN" if kind == 1 else "does not sum to one"
        raise LabelError(
            f"soft_targets: row {row} of labels {fault}: {labels[row].tolist()}; pass the labels "
            f"of an aligned model, not its logits, and keep them in float32."
        )
