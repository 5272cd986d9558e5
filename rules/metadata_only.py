"""Operators that read only the shape, type or device of their operand, or give a Python number.

Their result does not come from the image, whatever tensor they are given. A number that a model
reads off a tensor chooses what it does next.
"""

from labeltrace.flow import Constant, Flow
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule


@register_rule(
    "aten.empty_like",
    "aten.full_like",
    "aten.new_empty",
    "aten.new_full",
    "aten.new_ones",
    "aten.new_zeros",
    "aten.ones_like",
    "aten.rand_like",
    "aten.randint_like",
    "aten.randn_like",
    "aten.zeros_like",
    "aten._assert_tensor_metadata",
    "aten.sym_numel",
    "aten.sym_size",
    "aten.sym_storage_offset",
    "aten.sym_stride",
)
def from_metadata(call: Call) -> Flow | tuple[Flow, ...]:
    """A new tensor, a size, or nothing."""
    return Constant()


@register_rule("aten.item", "aten.is_nonzero", "aten._local_scalar_dense")
def number(call: Call) -> Flow | tuple[Flow, ...]:
    """A tensor's only value as a number of Python's."""
    return Constant()
