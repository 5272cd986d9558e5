"""Tensors of the forward half that label steps read: weights, queries, keys, kernels, indices."""

from __future__ import annotations

from torch.fx import Graph, Node

from labeltrace import label_ops
from labeltrace.codegen.label_calls import LabelCalls
from labeltrace.flow import TensorSource, ValueRef
from labeltrace.rewrites import Rows
from labeltrace.tracing.values import Recomputed


class ForwardTensors:
    """The captured graph's nodes in the generated graph.

    Attributes:
        calls: the label calls of the generated graph.
    """

    def __init__(self, captured: Graph, calls: LabelCalls) -> None:
        self.calls = calls
        self._originals = {node.name: node for node in captured.nodes}
        self._copies: dict[str, Node] = {}  # by the names of the captured graph's nodes
        self._graph = calls.graph
        self._recomputed: dict[Recomputed, Node] = {}

    def copy(self, node: Node) -> None:
        """Copy a node of the captured graph to the end of the generated one."""
        self.register_copy(node, self._graph.node_copy(node, self.copy_of))

    def register_copy(self, node: Node, copy: Node) -> None:
        """Enter what computes the value of a node of the captured graph."""
        self._copies[node.name] = copy

    def copy_of(self, node: Node) -> Node:
        """What computes the value of a node of the captured graph."""
        return self._copies[node.name]

    def read(self, source: TensorSource | None) -> Node:
        """The node that a label step reads for a tensor of the trace.

        Args:
            source: a value of the captured graph, some rows of a tensor, or weights that are
                computed a second time because the model's own went through dropout.
        """
        if isinstance(source, ValueRef):
            return self.copy_of(self._originals[source.name])
        if isinstance(source, Rows):
            return self._rows(source)
        assert isinstance(source, Recomputed)
        if source not in self._recomputed:
            self._recomputed[source] = self._recompute(source)
        return self._recomputed[source]

    def _rows(self, rows: Rows) -> Node:
        cut = rows.cut
        step = {} if cut.step == 1 else {"step": cut.step}
        bounds = (self.read(rows.tensor), cut.dim, cut.start, cut.stop)
        return self.calls.call(label_ops.cut, bounds, step, name="rows")

    def _recompute(self, source: Recomputed) -> Node:
        inputs = {name: self.read(other) for name, other in source.substitutes.items()}
        copy = self._graph.node_copy(
            self._originals[source.call], lambda node: inputs.get(node.name) or self.copy_of(node)
        )
        copy.meta.pop("custom", None)  # it belongs to none of the original's checkpointed regions
        return copy
