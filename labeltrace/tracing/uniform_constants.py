"""Constants that have one value at all indices: `torch.ones(n, n) / n`.

A product with such a constant, summed over positions, is a plain sum or mean of them. Parameters
and buffers do not count: their values may change.
"""

from __future__ import annotations

from typing import Final

from labeltrace.capture.call_records import CallKind, CallRecord, ModelCalls
from labeltrace.flow import ValueRef

CREATED: Final = frozenset(
    {
        "aten.ones",
        "aten.full",
        "aten.ones_like",
        "aten.full_like",
        "aten.new_ones",
        "aten.new_full",
        "aten.scalar_tensor",
    }
)
"""Operators that fill a new tensor with one number."""

KEPT: Final = frozenset(
    {
        "aten.add",
        "aten.alias",
        "aten.clone",
        "aten.detach",
        "aten.div",
        "aten.expand",
        "aten.mul",
        "aten.permute",
        "aten.reshape",
        "aten.rsub",
        "aten.sub",
        "aten.t",
        "aten.to",
        "aten.transpose",
        "aten.unsqueeze",
        "aten.view",
        "aten._to_copy",
    }
)
"""Operators that leave one value at all indices if their tensors have one."""


def is_uniform(name: str, calls: ModelCalls) -> bool:
    """Whether a constant is known to have one value at all indices."""
    waiting = [name]
    while waiting:
        call = calls[waiting.pop()]
        if call.kind is not CallKind.OPERATOR or call.overwritten:
            return False
        read = [value.name for value in call.arguments.values() if isinstance(value, ValueRef)]
        if call.operator in CREATED:
            continue
        if call.operator not in KEPT or not read:
            return False
        waiting += read
    return not _is_written(calls[name], calls)


def _is_written(call: CallRecord, calls: ModelCalls) -> bool:
    return call.tensor is not None and call.tensor.storage in calls.overwritten_storages()
