"""Flows: the closed set of ways in which labels move through one operator.

A rule looks at one call and returns one `Flow` for each of its outputs.
"""

from labeltrace.flow.averaging_steps import AdaptivePool, Aggregate, Average, Fold, Pool
from labeltrace.flow.flow import Carry, Constant, Flow, LabelStep, LabelView, OneSourceStep, Weights
from labeltrace.flow.mixing_steps import (
    Attend,
    Convolve,
    ConvolveTransposed,
    Custom,
    FinalStates,
    LinearMix,
    Mix,
    Recur,
    Resample,
)
from labeltrace.flow.moving_steps import (
    Flip,
    Join,
    Pad,
    Rearrange,
    Repeat,
    Roll,
    Select,
    Slice,
    Take,
    Unfold,
)
from labeltrace.flow.operand import Operand, ProductOperands, product_after_other_step
from labeltrace.flow.operation import Operation

__all__ = [
    "AdaptivePool",
    "Aggregate",
    "Attend",
    "Average",
    "Carry",
    "Constant",
    "Convolve",
    "ConvolveTransposed",
    "Custom",
    "FinalStates",
    "Flip",
    "Flow",
    "Fold",
    "Join",
    "LabelStep",
    "LabelView",
    "LinearMix",
    "Mix",
    "OneSourceStep",
    "Operand",
    "Operation",
    "Pad",
    "Pool",
    "ProductOperands",
    "Rearrange",
    "Recur",
    "Repeat",
    "Resample",
    "Roll",
    "Select",
    "Slice",
    "Take",
    "Unfold",
    "Weights",
    "product_after_other_step",
]
