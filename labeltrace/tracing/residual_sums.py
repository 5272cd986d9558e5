"""Sums of sums: a chain of additions whose partial sums nobody else reads is one sum.

That is point 6 of the contract: `(a + b) + c` averages three labels with equal shares. The second
addition counts its first summand twice (`merge_sums`). That the first addition is then only a
partial sum is marked after the walk (`mark_partial_sums`).

The shares cannot wait until after the walk: two additions of the same fields have equal labels
only if their shares are equal, and rules compare fields to see which labels are equal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from labeltrace.capture.call_records import CallRecord
from labeltrace.flow import Average, Constant, Flow, Operation, Weights
from labeltrace.tracing.environment import Environment
from labeltrace.tracing.operands import name_at
from labeltrace.tracing.traced_node import TracedNode


def merge_sums(flow: Flow, record: CallRecord, environment: Environment) -> Flow:
    """The flow of a sum with the summands of its partial sums as its own; others as they are."""
    if not isinstance(flow, Average) or flow.operation is not Operation.RESIDUAL:
        return flow
    shares = tuple(
        share * _summands_of(name_at(record, labels.operand.path), environment)
        for labels, share in zip(flow.sources, flow.shares, strict=True)
    )
    return replace(flow, shares=shares)


def count_summands(flow: Flow, record: CallRecord, environment: Environment) -> int:
    """The number of streams that an output is the sum of; 1 for what is no sum."""
    if not _is_sum(flow):
        return 1
    return sum(_summands_of(name, environment) for name in environment.inputs_from_image(record))


def merged_inputs(
    flows: Iterable[Flow], record: CallRecord, environment: Environment
) -> frozenset[str]:
    """The names of inputs that are partial sums of the sum that a call computes."""
    if not any(map(_is_sum, flows)):
        return frozenset()
    inputs = environment.inputs_from_image(record)
    return frozenset(name for name in inputs if _summands_of(name, environment) > 1)


def mark_partial_sums(
    nodes: Iterable[TracedNode], partial_sums: Collection[str]
) -> tuple[TracedNode, ...]:
    """The nodes, with partial sums as an operation of their own."""
    return tuple(
        replace(node, operation=Operation.PARTIAL_SUM) if node.name in partial_sums else node
        for node in nodes
    )


def _is_sum(flow: Flow) -> bool:
    labeled = not isinstance(flow, (Constant, Weights))
    return labeled and flow.operation is Operation.RESIDUAL


def _summands_of(name: str, environment: Environment) -> int:
    """The number of streams that the result of a call adds to a sum."""
    value = environment.value(name)
    if value is None or value.summands == 1:
        return 1
    users = (environment.calls[user] for user in environment.calls[name].users)
    readers = [user for user in users if not user.reads_sizes_only]
    return value.summands if len(readers) <= 1 else 1
