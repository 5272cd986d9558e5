"""Calls of label functions in the generated graph: equal calls are computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.fx import Graph, Node


class LabelCalls:
    """Adds calls of label functions to a graph, each with a note about its place in the model.

    Attributes:
        graph: the graph that is generated; nodes are added at its end.
        notes: the module path of each label node, in the order in which nodes were added.
        module_path: the note for the next calls.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.notes: dict[Node, str] = {}
        self.module_path = ""
        self._known: dict[Any, Node] = {}

    def call(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        settings: Mapping[str, Any] | None = None,
        name: str = "y",
    ) -> Node:
        """The node of a call; the known one if an equal call is in the graph (CSE).

        Args:
            function: a label function.
            arguments: its positional arguments: nodes and literals.
            settings: its keyword arguments.
            name: the stem of the node's name.
        """
        key = (function, _hashable(arguments), _hashable(settings))
        if key not in self._known:
            node = self.graph.create_node(
                "call_function", function, arguments, dict(settings or {}), name=name
            )
            self.notes[node] = self.module_path
            self._known[key] = node
        return self._known[key]

    def eliminate_unused(self) -> None:
        """Erase label nodes without a reader, for example those replaced by a shorter relayout."""
        for node in reversed(list(self.notes)):
            if not node.users:
                self.graph.erase_node(node)
                del self.notes[node]


def _hashable(value: Any) -> Any:
    """Arguments as part of a key."""
    if isinstance(value, Mapping):
        return tuple((key, _hashable(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(item) for item in value)
    return value
