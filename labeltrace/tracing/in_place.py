"""Operators that write to an argument: which values they change.

A captured graph may write in place (`aten.add_`). Whoever reads the written tensor later, or a view
of the same memory, sees the result. Views of other parts of that memory would need a layout of
their own, so that to read one of them after the write is an error.
"""

from __future__ import annotations

from labeltrace.capture.call_records import CallRecord
from labeltrace.errors import LayoutError
from labeltrace.layout import factor_kinds
from labeltrace.tracing.environment import Environment
from labeltrace.tracing.values import Value


def values_changed(
    record: CallRecord, after: Value | None, environment: Environment
) -> tuple[str, ...]:
    """The names of the calls whose results a write changes.

    Args:
        record: the call that writes.
        after: what is known of the written tensor after it.
        environment: what was known before it.

    Returns:
        The names; none where the call writes nothing or leaves the label as it is.

    Raises:
        LayoutError: another view of the same memory is read later, with a label that this write
            has made untrue.
    """
    if record.written is None or _same_label(environment.value(record.written), after):
        return ()
    changed = [record.written]
    written = environment.calls[record.written].tensor
    for view in environment.views(record.written, until=record.index):
        if view.name in (record.written, record.name):
            continue
        assert view.tensor is not None
        assert written is not None
        if view.tensor.is_same_view(written):
            changed.append(view.name)
        elif any(environment.calls[user].index > record.index for user in view.users):
            raise LayoutError(
                f"it writes in place to {record.written}, and {view.name}, a view of the same "
                "memory, is read later; write to a fresh tensor instead"
            )
    return tuple(changed)


def _same_label(before: Value | None, after: Value | None) -> bool:
    """Whether a write leaves the label as it was; weights are read from memory as they are."""
    if before is None or after is None:
        return before is after
    if before.field is None and after.field is None:
        return factor_kinds(before.layout) == factor_kinds(after.layout)
    return (before.field, before.layout) == (after.field, after.layout)
