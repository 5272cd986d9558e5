"""Where the label graph reads the values of a tensor."""

from __future__ import annotations

from torch.fx import Node


class ComputedTensor:
    """A tensor that the label graph computes itself from nodes; the subclasses say how."""

    __slots__ = ()


TensorSource = Node | ComputedTensor
"""A node of the captured graph, or what the label graph computes from such nodes."""
