"""Unplaced values: the image's, with positions that no layout can follow.

Relative positions are looked up by tricks of this kind: scores for each distance are padded,
flattened and cut so that every row moves by one.  What comes of it is added to scores of queries
and keys, and there the places do not matter: mixing weights have no label, and the scores say which
positions they mix (contract, point 9).  So a layout that cannot be followed is no error yet.  It
becomes one as soon as anything else reads the value.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from labeltrace.flow import Operand
from labeltrace.rule_api.call import Call

SUMS = frozenset({"aten.add", "aten.sub", "aten.rsub", "aten.__iadd__", "aten.__isub__"})
"""Operators that add to scores.  In a product, weights would be a gate of the unplaced content."""


def added_to_weights(call: Call, names: Collection[str], unplaced: Collection[object]) -> Call:
    """A call that adds unplaced values to mixing weights of the same shape, without those values.

    Args:
        call: the operator's call.
        names: the names of the operator.
        unplaced: the tensors (:attr:`Operand.tensor`) whose positions are not known.

    Returns:
        The call with those operands as constants, or the very same call if they mean more to it.
    """
    placed = [operand for operand in call.operands if operand.tensor not in unplaced]
    weights = [
        operand for operand in placed if operand.is_weights and operand.key_value_product is None
    ]
    others = [operand for operand in placed if operand.traced and operand not in weights]
    fits = any(operand.shape == call.output for operand in weights)
    if others or not fits or SUMS.isdisjoint(names):
        return call
    arguments = {name: _constant(value, unplaced) for name, value in call.arguments.items()}
    return replace(call, arguments=arguments)


def _constant(value: Any, unplaced: Collection[object]) -> Any:
    if isinstance(value, Operand) and value.tensor in unplaced:
        return Operand(value.path, value.shape, tensor=value.tensor)
    return value
