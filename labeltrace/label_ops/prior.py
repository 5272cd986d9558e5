"""The prior: the label of what joins the positions without coming from the image."""

from __future__ import annotations

from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic


@label_arithmetic
def prior_of(labels: Tensor) -> Tensor:
    """The mean over all positions of a field (B, ..., K): (B, K), contract point 3."""
    return labels.flatten(1, -2).mean(1) if labels.dim() > 2 else labels
