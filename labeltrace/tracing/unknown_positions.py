"""Values computed from the image whose positions no layout can express.

Relative positions are looked up by such tricks: scores for each distance are padded, flattened and
sliced so that every row moves by one. The result is added to scores of queries and keys, and there
its positions do not matter: mixing weights have no label, and the scores say which positions they
mix (contract, point 9). So a layout that cannot be followed is not an error yet. It becomes one as
soon as anything else reads the value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from labeltrace.flow import Operand, TensorSource
from labeltrace.rule_api.call import Call

SUMS = frozenset({"aten.add", "aten.sub", "aten.rsub", "aten.__iadd__", "aten.__isub__"})
"""Operators that add to scores. In a product, weights would be a gate of the unknown content."""


SAYS_WHERE: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(("aten.index", "aten.index_put", "aten.take_along_dim"), "indices")
    | dict.fromkeys(
        (
            "aten.gather",
            "aten.index_add",
            "aten.index_copy",
            "aten.index_fill",
            "aten.index_reduce",
            "aten.index_select",
            "aten.scatter",
            "aten.scatter_add",
            "aten.scatter_reduce",
        ),
        "index",
    )
    | dict.fromkeys(("aten.masked_fill", "aten.masked_scatter", "aten.masked_select"), "mask")
    | dict.fromkeys(("aten.where",), "condition")
    | dict.fromkeys(
        (
            "torchvision.ps_roi_align",
            "torchvision.ps_roi_pool",
            "torchvision.roi_align",
            "torchvision.roi_pool",
        ),
        "rois",
    )
    | dict.fromkeys(
        (
            "aten.binary_cross_entropy_with_logits",
            "aten.cross_entropy_loss",
            "aten.l1_loss",
            "aten.smooth_l1_loss",
        ),
        "target",
    )
)
"""The argument of which an operator reads the values alone: indices, masks, boxes, targets."""

GIVES_AN_INDEX = frozenset(
    {"aten.argsort", "aten.argmax", "aten.nonzero", "aten.nonzero_numpy", "torchvision.nms"}
)
"""Operators that read values alone, since their result is an index."""


def says_only_where(call: Call, unknown: Collection[TensorSource]) -> bool:
    """Whether the positions of values do not matter to a call: it only reads where others are.

    Args:
        call: the operator's call, in which these values look like constants.
        unknown: the tensors (`labeltrace.flow.Operand.tensor`) whose positions are unknown.
    """
    if gives_an_index(call):
        return True
    where = SAYS_WHERE.get(call.operator)
    others = {name: value for name, value in call.arguments.items() if name != where}
    elsewhere = replace(call, arguments=others).operands
    return not any(operand.tensor in unknown for operand in elsewhere)


def gives_an_index(call: Call) -> bool:
    """Whether the result of a call is an index, so that only values matter to it."""
    return call.operator in GIVES_AN_INDEX


def added_to_weights(call: Call, names: Collection[str], unknown: Collection[TensorSource]) -> Call:
    """A call that adds values with unknown positions to mixing weights, without those values.

    Args:
        call: the operator's call.
        names: the names of the operator.
        unknown: the tensors (`labeltrace.flow.Operand.tensor`) whose positions are unknown.

    Returns:
        The call with those operands as constants. The very same call if it does not add them to
        mixing weights of the output's shape.
    """
    known = [operand for operand in call.operands if operand.tensor not in unknown]
    weights = [
        operand for operand in known if operand.is_weights and operand.key_value_product is None
    ]
    others = [operand for operand in known if operand.traced and operand not in weights]
    fits = any(operand.shape == call.output for operand in weights)
    if others or not fits or SUMS.isdisjoint(names):
        return call
    arguments = {name: _constant(value, unknown) for name, value in call.arguments.items()}
    return replace(call, arguments=arguments)


def _constant(value: Any, unknown: Collection[TensorSource]) -> Any:
    if isinstance(value, Operand) and value.tensor in unknown:
        return Operand(value.path, value.shape, tensor=value.tensor)
    return value
