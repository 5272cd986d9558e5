"""Sizes that depend on values: what of them a captured graph can still follow.

The records of a graph know one dynamic size, the batch. An axis whose size is decided by values
stands beside it as if it were another batch. That is right as long as the axis stays what it is.
"""

from __future__ import annotations

from collections.abc import Collection

from labeltrace.capture.call_records import CallRecord, ModelCalls
from labeltrace.rule_api.call import Rule

SIZED_BY_VALUES = (
    "a size or number that it returns depends on the values of tensors, which a captured graph "
    "does not know; keep sizes constant there (multiply by the mask, take a fixed number of "
    'tokens), or run the model as it is with align(model, engine="recorded"), where all sizes are '
    "known"
)

RESHAPING = frozenset(
    {
        "aten.flatten",
        "aten.ravel",
        "aten.reshape",
        "aten.reshape_as",
        "aten.unflatten",
        "aten.unfold",
        "aten.view",
        "aten.view_as",
        "aten._reshape_alias",
        "aten._reshape_copy",
        "aten._unsafe_view",
    }
)
"""Operators that divide or join the sizes of axes."""


def keeps_sizes_apart(
    record: CallRecord, rule: Rule | None, read: Collection[str], calls: ModelCalls
) -> bool:
    """Whether a call with a size that values decide treats it as an axis of its own.

    A constant mask selects positions, and all that follows may keep these or reduce them. A mask
    from the image may select others in each image, and a view would divide that size.

    Args:
        record: the call, one of whose results has such a size.
        rule: its rule, if it has one.
        read: the names of its inputs that come from the image.
        calls: the records of all calls.
    """
    if rule is None or record.operator in RESHAPING:
        return False
    return len(read) == 1 or any(calls[name].sized_by_values for name in read)
