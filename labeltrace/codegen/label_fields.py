"""Label fields in the generated graph, with the dimensions that each reader needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import Node

from labeltrace import label_ops
from labeltrace.codegen.label_calls import LabelCalls
from labeltrace.errors import LayoutError
from labeltrace.flow import LabelField
from labeltrace.layout import Arrangement, Size, infer_dynamic, is_dynamic


class LabelFields:
    """The node that computes each label field, and its relayouts."""

    def __init__(self, calls: LabelCalls) -> None:
        self._calls = calls
        self._nodes: dict[LabelField, Node] = {}
        self._shapes: dict[Node, tuple[Size, ...]] = {}
        self._arranged: dict[tuple[Node, Arrangement], Node] = {}

    def __contains__(self, field: LabelField) -> bool:
        return field in self._nodes

    def register_field(self, field: LabelField, node: Node, sizes: tuple[Size, ...]) -> None:
        """Enter the node that computes a field with these dimensions, without K."""
        self._nodes[field] = node
        self._shapes[node] = sizes

    def arranged(self, field: LabelField, arrangement: Arrangement) -> Node:
        """The field with other dimensions; the field itself if nothing changes."""
        node = self._nodes[field]
        key = (node, arrangement)
        if key not in self._arranged:
            self._arranged[key] = self._relayout(node, arrangement)
        return self._arranged[key]

    def _relayout(self, node: Node, arrangement: Arrangement) -> Node:
        """A call of `relayout` with only those of split, order and merge that change something."""
        stored = self._shapes[node]
        order = [dim for group in arrangement.groups for dim in group]
        target = arrangement.shape
        settings: dict[str, Any] = {}
        if order == sorted(order):
            if target == stored:
                return node
            if node.target is label_ops.relayout:  # change its last reshape instead of adding one
                settings.update(node.kwargs)
                (node,) = node.all_input_nodes
            settings["merge"] = _view_sizes(target)
        else:
            if arrangement.sizes != stored:
                settings["split"] = _view_sizes(arrangement.sizes)
            settings["order"] = order
            if target != tuple(arrangement.sizes[dim] for dim in order):
                settings["merge"] = _view_sizes(target)
        moved = self._calls.call(label_ops.relayout, (node,), settings)
        self._shapes[moved] = target
        return moved


def _view_sizes(sizes: Sequence[Size]) -> list[int]:
    """Sizes for a view: the dimension of the dynamic batch is left for torch to infer.

    Raises:
        LayoutError: two dimensions are dynamic, so that none can be inferred.
    """
    if sum(map(is_dynamic, sizes)) > 1:
        raise LayoutError(
            "a dynamic batch stands in two dimensions of one label field: the model pairs every "
            "sample with every other; leave that step, a contrastive loss perhaps, out of the model"
        )
    return infer_dynamic(sizes)
