"""Operators that write to an argument: which values they change.

A model may write in place (`aten.add_`). Whoever reads the written tensor later, or a view of the
same memory, sees the result; see `labeltrace.tracing.written_views` for views of other parts of it.
"""

from __future__ import annotations

import itertools

from labeltrace.capture.call_records import CallRecord
from labeltrace.layout import factor_kinds
from labeltrace.tracing.environment import Environment
from labeltrace.tracing.overlapping_views import overlap
from labeltrace.tracing.values import Traced, Value
from labeltrace.tracing.written_views import PartWrite, WrittenViews, after_part_write


def values_changed(
    record: CallRecord, after: Value | None, environment: Environment, parts: WrittenViews
) -> dict[str, Value | None]:
    """What is known of the results that a write changes, by the names of their calls.

    Args:
        record: the call that writes.
        after: what is known of the written tensor after it.
        environment: what was known before it.
        parts: the writes to parts of views so far; this one is added.

    Returns:
        The values; none where the call writes nothing or leaves the label as it is.

    Raises:
        LayoutError: another view of the same memory is read later, whose label cannot be followed.
    """
    if record.written is None or _same_label(environment.value(record.written), after):
        return {}
    changed = {record.written: after}
    written = environment.calls[record.written].tensor
    fields = itertools.count(len(record.tensors) + 1)
    for view in environment.views(record.written, until=record.index):
        if view.name in (record.written, record.name):
            continue
        assert view.tensor is not None
        assert written is not None
        if view.tensor.is_same_view(written):
            changed[view.name] = after
        elif _is_read_after(view, record, environment) and overlap(view.tensor, written):
            write = PartWrite(written, after)
            value = after_part_write(record, view, write, next(fields), environment, parts)
            changed[view.name] = value
    return changed


def _is_read_after(view: CallRecord, record: CallRecord, environment: Environment) -> bool:
    if not isinstance(environment.state(view.name), Traced):
        return False  # an error says already that nothing is known of it
    return any(environment.calls[user].index > record.index for user in view.users)


def _same_label(before: Value | None, after: Value | None) -> bool:
    """Whether a write leaves the label as it was; weights are read from memory as they are."""
    if before is None or after is None:
        return before is after
    if before.field is None and after.field is None:
        return factor_kinds(before.layout) == factor_kinds(after.layout)
    return (before.field, before.layout) == (after.field, after.layout)
