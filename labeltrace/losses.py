"""The training loss for aligned targets."""

import torch
import torch.nn.functional as F
from torch import Tensor

from labeltrace.errors import LabelError


def soft_cross_entropy(logits: Tensor, soft_targets: Tensor) -> Tensor:
    """Cross-entropy between logits and class distributions, eq. 12 of the TL-Align paper.

    The target is detached: gradient flows to the logits only, even if the target was computed in
    the same forward pass. The values of the targets are not checked.

    Args:
        logits: (B, C) or (B, C, *sizes), floating point; the class axis is dimension 1.
        soft_targets: same shape and device, floating point, summing to one over dimension 1, such
            as `MixedBatch.soft_targets` returns.

    Returns:
        The mean over the batch (and over `sizes`) in nats: a scalar, float32, or float64 for logits
        in float64. Half-precision logits are converted to float32 first, also under autocast.

    Raises:
        LabelError: the two differ in shape or device, are empty, are not floating point, or have no
            class axis.

    Examples:
        >>> import torch
        >>> from labeltrace import soft_cross_entropy
        >>> logits = torch.zeros(2, 4)
        >>> soft_targets = torch.tensor([[0.7, 0.3, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
        >>> round(soft_cross_entropy(logits, soft_targets).item(), 4)  # log(4)
        1.3863
    """
    _check_pair(logits, soft_targets)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(dtype), soft_targets.detach().to(dtype))


def _check_pair(logits: Tensor, soft_targets: Tensor) -> None:
    if logits.ndim < 2 or logits.numel() == 0:
        raise LabelError(
            f"soft_cross_entropy: logits must be (B, C) or (B, C, *sizes) and not empty, "
            f"got {tuple(logits.shape)}; the class axis is dimension 1, after the batch."
        )
    if soft_targets.shape != logits.shape:
        raise LabelError(
            f"soft_cross_entropy: soft_targets {tuple(soft_targets.shape)} and logits "
            f"{tuple(logits.shape)} must have the same shape; make the targets with "
            f"MixedBatch.soft_targets(labels, num_classes={logits.shape[1]})."
        )
    for name, tensor in (("logits", logits), ("soft_targets", soft_targets)):
        if not tensor.is_floating_point():
            raise LabelError(
                f"soft_cross_entropy: {name} must be floating point, got {tensor.dtype}; "
                f"pass logits and distributions over classes, not class indices."
            )
    if soft_targets.device != logits.device:
        raise LabelError(
            f"soft_cross_entropy: soft_targets are on {soft_targets.device}, logits on "
            f"{logits.device}; move the targets with .to(logits.device)."
        )
