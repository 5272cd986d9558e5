"""What a trace says of one call of the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from labeltrace.capture.call_records import CallKind, CallRecord, Location, ModelCalls
from labeltrace.flow import Flow, Operation
from labeltrace.layout import Layout
from labeltrace.tracing.values import Value


@dataclass(frozen=True, slots=True)
class TracedNode:
    """One operator's call and what it does to labels.

    Attributes:
        name: the call's name: that of its node in the captured graph.
        operator: the operator's name, `"aten.linear"`.
        operation: what it does, by the factors that it contracts (the paper's Table 10).
        location: module path, module type and source line.
        layout: what the axes of its (first) output are made of; None for constants.
        labeled: whether the output carries labels (weights and constants do not).
        inputs: the names of the nodes whose labels or weights it reads.
        approximation: why the step is approximate; empty for exact ones.

    Examples:
        >>> import torch
        >>> from labeltrace import trace
        >>> pooled = trace(torch.nn.MaxPool2d(2), torch.rand(2, 3, 8, 8)).nodes[-1]
        >>> pooled.operator, str(pooled.operation), pooled.exact
        ('aten.max_pool2d', 'spatial aggregation', False)
    """

    name: str
    operator: str
    operation: Operation
    location: Location
    layout: Layout | None
    labeled: bool
    inputs: tuple[str, ...]
    approximation: str = ""

    @property
    def exact(self) -> bool:
        """Whether the rule says exactly where labels go."""
        return not self.approximation

    @property
    def module_path(self) -> str:
        """The qualified name of the module that made the call; empty for the model itself."""
        return self.location.module_path

    @property
    def source_line(self) -> str:
        """`file:line: code` of the innermost line outside torch."""
        return self.location.source_line


def traced_node(
    record: CallRecord,
    flow: Flow,
    output: Value | None,
    read: Iterable[str],
    calls: ModelCalls,
    operator: str = "",
) -> TracedNode:
    """The node of a call.

    Args:
        record: the call; for a module or function with a rule, its last one.
        flow: what the rule said of the first output.
        output: what is known of the first output.
        read: the names of the inputs that come from the image.
        calls: the records of all calls.
        operator: the name of the module or function; empty for an operator.
    """
    return TracedNode(
        name=record.name,
        operator=operator or record.operator,
        operation=flow.operation,
        location=record.location,
        layout=output.layout if output else None,
        labeled=output is not None and output.field is not None,
        inputs=tuple(_producer(name, calls) for name in read),
        approximation=flow.approximation,
    )


def _producer(name: str, calls: ModelCalls) -> str:
    """The call that computes a value, not the one that picks it from several outputs."""
    record = calls[name]
    while record.kind is CallKind.ITEM:
        record = calls[record.arguments["source"].name]
    return record.name
