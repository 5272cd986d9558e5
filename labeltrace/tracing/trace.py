"""A trace: a model's calls and what each does to labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from labeltrace.capture.call_records import ModelCalls
from labeltrace.flow import LabelField, LabelStep, Operation
from labeltrace.layout import Layout
from labeltrace.tracing.summaries import flow_graph, node_table
from labeltrace.tracing.traced_node import TracedNode
from labeltrace.tracing.values import Value

if TYPE_CHECKING:
    import networkx
    from rich.table import Table

    from labeltrace.capture.captured import Capture


@dataclass(frozen=True)
class Trace:
    """A model's operators and what each does to labels.

    Attributes:
        nodes: every operator's call, in order.
        capture: what the model was captured as; `capture.batch.fixed_reason` says why the batch
            size is fixed.
        calls: the record of each call.
        steps: the label steps, by the field that each computes.
        outputs: a value for each leaf of the model's output, None for constants.
        labeled: what is known of every tensor that carries labels, by the name of its node.
        input_field: the label field of the input.
        input_layout: the layout of the input.

    Examples:
        >>> import torch
        >>> from labeltrace import trace
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ReLU())
        >>> found = trace(model, torch.rand(2, 3, 8, 8))
        >>> found.counts()
        {'pointwise': 1, 'spatial aggregation': 1}
        >>> [node.name for node in found.nodes if node.module_path == "1"]
        ['relu']
    """

    nodes: tuple[TracedNode, ...]
    capture: Capture
    calls: ModelCalls = field(repr=False)
    steps: Mapping[LabelField, LabelStep] = field(repr=False)
    outputs: tuple[Value | None, ...] = field(repr=False)
    labeled: Mapping[str, Value] = field(repr=False)
    input_field: LabelField = field(repr=False)
    input_layout: Layout = field(repr=False)

    def counts(self) -> dict[str, int]:
        """The number of nodes of each operation, `"spatial mixing"` and so on."""
        counted = Counter(str(node.operation) for node in self.nodes)
        return {str(name): counted[name] for name in Operation if counted[name]}

    @cached_property
    def graph(self) -> networkx.DiGraph:
        """The label flow; see `labeltrace.tracing.summaries.flow_graph`."""
        return flow_graph(self.nodes)

    def fields_of(self, node: str) -> tuple[LabelField, ...]:
        """The label fields that a node's step computes, one for each output that has one."""
        return self._fields_by_node.get(node, ())

    @cached_property
    def _fields_by_node(self) -> dict[str, tuple[LabelField, ...]]:
        found: dict[str, tuple[LabelField, ...]] = {}
        for key in self.steps:
            found[key.node] = (*found.get(key.node, ()), key)
        return found

    @cached_property
    def module_paths(self) -> Mapping[str, str]:
        """The innermost module of each call, by the call's name."""
        return {call.name: call.location.module_path for call in self.calls}

    @cached_property
    def order(self) -> Mapping[str, int]:
        """The index of each call, by its name."""
        return {call.name: call.index for call in self.calls}

    @property
    def approximate(self) -> tuple[TracedNode, ...]:
        """The nodes whose rule is an approximation; each says why."""
        return tuple(node for node in self.nodes if not node.exact)

    def table(self, title: str = "") -> Table:
        """The nodes as a `rich` table, grouped by module."""
        return node_table(self.nodes, title)
