"""Recurrent layers: every step mixes those before it, as if it remembered all of them alike."""

from __future__ import annotations

import torch
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic, mean_of_last


@label_arithmetic
def recur(
    labels: Tensor, dim: int, layers: int, bidirectional: bool = False, feature_dims: int = 0
) -> Tensor:
    """The outputs of ``layers`` recurrent layers that run along dimension ``dim``.

    Step t of a layer is the mean of the steps up to t; ``bidirectional`` averages that with the
    mean of the steps from t on.  The last ``feature_dims`` dimensions of the field (positions..., K),
    positions among the features, are averaged first.
    """
    labels = mean_of_last(labels, feature_dims)
    mixing = _one_layer(labels.shape[dim], bidirectional, labels.device)
    return _along(torch.linalg.matrix_power(mixing, layers), labels, dim)


@label_arithmetic
def final_states(
    labels: Tensor, dim: int, layers: int, bidirectional: bool = False, feature_dims: int = 0
) -> Tensor:
    """What each layer and direction ends with: (layers * directions, positions..., K).

    A layer has then read all of its steps, in either direction: the mean of what the layers below
    it gave.  Dimension ``dim`` goes; the arguments are those of :func:`recur`.
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
