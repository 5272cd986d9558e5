"""Flows: the closed set of ways in which labels move through one operator.

A rule looks at one call and returns one `Flow` for each of its outputs.
"""

from labeltrace.flow.averaging_steps import AdaptivePool, Aggregate, Average, Fold, Pool
from labeltrace.flow.box_steps import SampleBoxes
from labeltrace.flow.contracted_streams import ContractedStreams
from labeltrace.flow.flow import Carry, Constant, Flow, LabelStep, LabelView, OneSourceStep, Weights
from labeltrace.flow.index_steps import Elements, Indexing, Reindex, Write
from labeltrace.flow.key_value_product import AxisRun, KeyValueProduct
from labeltrace.flow.label_field import LabelField
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
from labeltrace.flow.named_operand import NamedOperand
from labeltrace.flow.operand import Operand
from labeltrace.flow.operation import Operation
from labeltrace.flow.origin import Origin, Strides
from labeltrace.flow.product_operands import ProductOperands
from labeltrace.flow.tensor_source import ComputedTensor, TensorSource, ValueRef
from labeltrace.flow.value_facts import NOTHING_KNOWN, ValueFacts

__all__ = [
    "NOTHING_KNOWN",
    "AdaptivePool",
    "Aggregate",
    "Attend",
    "Average",
    "AxisRun",
    "Carry",
    "ComputedTensor",
    "Constant",
    "ContractedStreams",
    "Convolve",
    "ConvolveTransposed",
    "Custom",
    "Elements",
    "FinalStates",
    "Flip",
    "Flow",
    "Fold",
    "Indexing",
    "Join",
    "KeyValueProduct",
    "LabelField",
    "LabelStep",
    "LabelView",
    "LinearMix",
    "Mix",
    "NamedOperand",
    "OneSourceStep",
    "Operand",
    "Operation",
    "Origin",
    "Pad",
    "Pool",
    "ProductOperands",
    "Rearrange",
    "Recur",
    "Reindex",
    "Repeat",
    "Resample",
    "Roll",
    "SampleBoxes",
    "Select",
    "Slice",
    "Strides",
    "Take",
    "TensorSource",
    "Unfold",
    "ValueFacts",
    "ValueRef",
    "Weights",
    "Write",
]
