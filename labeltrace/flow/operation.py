"""The operations of the paper's Table 10, as each node of a trace names one."""

from __future__ import annotations

from enum import StrEnum


class Operation(StrEnum):
    """What a node does, by what it contracts: Table 10 of the paper and four helper classes."""

    SPATIAL_MIXING = "spatial mixing"
    CHANNEL_MIXING = "channel mixing"
    POINTWISE = "pointwise"
    RESIDUAL = "residual"
    SPATIAL_AGGREGATION = "spatial aggregation"
    RELAYOUT = "relayout"
    """Positions are reordered, cut, padded or joined, and nothing is mixed."""
    WEIGHTS = "weights"
    """Mixing weights in the making: scores, masks, biases on scores (contract, point 9)."""
    PARTIAL_SUM = "partial sum"
    """A sum that is but a part of a larger one, which counts as the residual."""
    CONSTANT = "constant"
    """Nothing that comes from the image: parameters, masks, random draws, sizes."""
