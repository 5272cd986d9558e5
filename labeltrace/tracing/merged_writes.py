"""Writes to a constant, one after the other: they are one step.

A mixture of experts adds what each expert gives to zeros. The zeros carry nothing, so that the
first sum has a label only where something was added; what is added there later is the whole label.
(Zeros that nothing is added to carry the prior, in the end.)
"""

from __future__ import annotations

from dataclasses import replace

from labeltrace.flow import Flow, Write
from labeltrace.tracing.environment import Environment

ADDED_TO_CONSTANT = (
    "it is added to a constant that was written to before, in parts that cannot be told apart; "
    "the constant counts as well"
)


def merge_writes(flow: Flow, environment: Environment) -> Flow:
    """A write to what is a constant but for earlier writes, with these before its own."""
    if not isinstance(flow, Write) or flow.pieces[0] is None:
        return flow
    base = flow.pieces[0]
    earlier = environment.steps.get(base.field)
    if not isinstance(earlier, Write) or earlier.pieces[0] is not None:
        return flow
    order = [dim for group in base.arrangement.groups for dim in group]
    same = order == sorted(order) and (flow.elements[0].shape, flow.result, flow.kept) == (
        earlier.elements[0].shape,
        earlier.result,
        earlier.kept,
    )
    if not same:
        return replace(flow, approximation=ADDED_TO_CONSTANT) if any(flow.adds) else flow
    return replace(
        flow,
        pieces=earlier.pieces + flow.pieces[1:],
        elements=earlier.elements + flow.elements[1:],
        places=earlier.places + flow.places,
        adds=earlier.adds + flow.adds,
        keeps=earlier.keeps + flow.keeps,
        approximation=flow.approximation or earlier.approximation,
    )
