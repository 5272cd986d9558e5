"""Where the label graph reads the values of a tensor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ValueRef:
    """The result of the model's call with this name."""

    name: str


class ComputedTensor:
    """A tensor that the label graph computes itself from such results; the subclasses say how."""

    __slots__ = ()


TensorSource = ValueRef | ComputedTensor
"""The result of a call, or what the label graph computes from such results."""
