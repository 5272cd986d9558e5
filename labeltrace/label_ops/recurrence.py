"""Recurrent layers: every step is the mean of the steps before it, as if nothing was forgotten."""

from __future__ import annotations

import torch
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic, mean_of_last


@label_arithmetic
def recur(
    labels: Tensor, dim: int, layers: int, bidirectional: bool = False, feature_dims: int = 0
) -> Tensor:
    """The outputs of recurrent layers.

    Step t of a layer is the mean of the steps up to t.

    Args:
        labels: a field (positions..., K), float32.
        dim: the dimension of the steps.
        layers: the number of layers.
        bidirectional: whether that is averaged with the mean of the steps from t on.
        feature_dims: the last dimensions of the field, positions among the features, which are
            averaged first.

    Returns:
        The field without the last `feature_dims` dimensions.
    """
    labels = mean_of_last(labels, feature_dims)
    mixing = _one_layer(labels.shape[dim], bidirectional, labels.device)
    return _along(torch.linalg.matrix_power(mixing, layers), labels, dim)


@label_arithmetic
def final_states(
    labels: Tensor, dim: int, layers: int, bidirectional: bool = False, feature_dims: int = 0
) -> Tensor:
    """The final state of each layer and direction: (layers * directions, positions..., K).

    A final state has read all steps, in either direction: it is the mean of the outputs of the
    layers below. Dimension `dim` is removed; the arguments are those of `recur`.
    """
    labels = mean_of_last(labels, feature_dims)
    mixing = _one_layer(labels.shape[dim], bidirectional, labels.device)
    rows = [torch.linalg.matrix_power(mixing, layer).mean(0) for layer in range(layers)]
    states = _along(torch.stack(rows), labels, dim).movedim(dim, 0)
    return states.repeat_interleave(2 if bidirectional else 1, 0)


def _one_layer(steps: int, bidirectional: bool, device: torch.device) -> Tensor:
    """The mixing matrix (steps, steps) of one layer; rows sum to one."""
    forward = torch.ones(steps, steps, device=device).tril()
    forward = forward / forward.sum(1, keepdim=True)
    return (forward + forward.flip(0, 1)) / 2 if bidirectional else forward


def _along(matrix: Tensor, labels: Tensor, dim: int) -> Tensor:
    """A matrix applied to one dimension."""
    moved = labels.movedim(dim, -2)
    return (matrix @ moved).movedim(-2, dim)
