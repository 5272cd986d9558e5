"""Inline the subgraphs of regions under autocast or another gradient mode.

`torch.export` wraps what runs inside `with torch.autocast(...)` or `with torch.no_grad()` into a
node with a graph of its own.  That graph is inlined between nodes that enter and leave the mode, so
that all later stages see one flat graph.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from labeltrace.capture.checkpoint_tags import CHECKPOINT_TAG, checkpoint_tag
from labeltrace.errors import CaptureError

GRAD_MODE = "wrap_with_set_grad_enabled"
AUTOCAST = "wrap_with_autocast"

MODE_SWITCHES = (torch._C._set_grad_enabled, torch.amp.autocast_mode._enter_autocast)


def inline_subgraphs(graph: Graph, root: nn.Module) -> Graph:
    """The graph with every wrapped region inlined; the graph itself where there is none.

    Raises:
        CaptureError: the graph has a higher-order node of another kind (`cond`, `scan`).
    """
    wrapped = [node for node in graph.nodes if _is_higher_order(node)]
    if not wrapped:
        return graph
    flat = Graph()
    values: dict[Node, Any] = {}
    for node in graph.nodes:
        if node.op == "output":
            flat.output(_mapped(node.args[0], values)).meta = dict(node.meta)
        else:
            _copy(node, flat, values, root)
    _drop_unused_graphs(flat)
    return flat


def _copy(node: Node, flat: Graph, values: dict[Node, Any], root: nn.Module) -> None:
    """Copy one node; the value of a wrapped region is the tuple that it returns."""
    if _is_higher_order(node):
        values[node] = _inline(node, flat, values, root)
        return
    source = node.args[0] if node.target is operator.getitem else None
    if isinstance(source, Node) and isinstance(values.get(source), (tuple, list)):
        index: Any = node.args[1]
        values[node] = values[source][index]
        return
    values[node] = flat.node_copy(node, lambda other: values[other])


def _inline(node: Node, flat: Graph, values: dict[Node, Any], root: nn.Module) -> tuple[Any, ...]:
    count = 1 if node.target.__name__ == GRAD_MODE else 4  # type: ignore[union-attr]
    settings, (reference, *arguments) = node.args[:count], node.args[count:]
    assert isinstance(reference, Node)
    inner = getattr(root, str(reference.target))
    assert isinstance(inner, GraphModule)
    enter, leave = _enter(flat, settings)
    known: dict[Node, Any] = {}
    inputs = iter(_mapped(argument, values) for argument in arguments)
    results: Any = ()
    for member in inner.graph.nodes:
        if member.op == "placeholder":
            known[member] = next(inputs)
        elif member.op == "output":
            results = _mapped(member.args[0], known)
        else:
            _copy(member, flat, known, inner)
    _join_call(inner, (enter, flat.call_function(*leave)))
    return results if isinstance(results, (tuple, list)) else (results,)  # type: ignore[return-value]


def _join_call(inner: GraphModule, switches: tuple[Node, Node]) -> None:
    """Tag the switches of a mode inside a checkpointed call: they are repeated with the call."""
    tags = {checkpoint_tag(node) for node in inner.graph.nodes if node.op == "call_function"}
    tag = tags.pop() if len(tags) == 1 else None
    if tag is not None:
        for switch in switches:
            switch.meta["custom"] = {CHECKPOINT_TAG: tag}


def _enter(flat: Graph, settings: tuple[Any, ...]) -> tuple[Node, tuple[Any, tuple[Any, ...]]]:
    """Enter the mode of a region; returns the node, and the call that leaves the mode."""
    if len(settings) == 1:
        entered = flat.call_function(torch._C._set_grad_enabled, settings)
        return entered, (torch._C._set_grad_enabled, (torch.is_grad_enabled(),))
    device, dtype, enabled, cached = settings
    enter = torch.amp.autocast_mode._enter_autocast
    state = flat.call_function(enter, (device, dtype, enabled, cached))
    return state, (torch.amp.autocast_mode._exit_autocast, (state,))


def _mapped(value: Any, values: dict[Node, Any]) -> Any:
    return torch.fx.node.map_arg(value, lambda node: values[node])


def _is_higher_order(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.HigherOrderOperator):
        return False
    if node.target.__name__ not in (GRAD_MODE, AUTOCAST):
        raise CaptureError(
            f"the model's graph branches or loops inside ({node.target.__name__}, node "
            f"{node.name}); labels cannot ride along a path that is chosen at run time"
        )
    return True


def _drop_unused_graphs(flat: Graph) -> None:
    for node in reversed(flat.nodes):
        if node.op == "get_attr" and not node.users:
            flat.erase_node(node)
