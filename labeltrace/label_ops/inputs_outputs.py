"""Inputs and outputs of the label graph: label images, and the labels of outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic


def batch_size(label_image: Tensor) -> int:
    """The number of images: the first size of a label image (B, K, *sizes)."""
    return label_image.shape[0]


@label_arithmetic
def read_image(label_image: Tensor, sizes: Sequence[int]) -> Tensor:
    """A label image (B, K, *sizes), or with ones for sizes, as a field (B, *sizes, K): a view."""
    labels = label_image.detach().to(torch.float32)
    labels = labels.expand(*labels.shape[:2], *sizes)
    return labels.movedim(1, -1)


@label_arithmetic
def write_output(labels: Tensor, sizes: Sequence[int], dim: int) -> Tensor:
    """A field (positions..., K) as the label of an output.

    Args:
        labels: the field.
        sizes: the sizes of the output without its class axis, to which positions that share a label
            are expanded; -1 keeps a dimension's size.
        dim: the place to which K moves.
    """
    labels = labels.expand(*sizes, labels.shape[-1])
    return labels.movedim(-1, dim).contiguous()
