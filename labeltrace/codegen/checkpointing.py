"""Checkpointed regions of a generated module, which are those of the model.

What the model computes inside `torch.utils.checkpoint` is not stored for the backward pass but
recomputed there. The label steps between those nodes are part of the first run and not of the
second: nothing in the backward pass needs them.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.utils.checkpoint import checkpoint

from labeltrace.capture.checkpoint_tags import Settings, checkpoint_tag
from labeltrace.capture.inline_subgraphs import MODE_SWITCHES
from labeltrace.codegen.restore_modes import modes_kept


class CheckpointedRegion(nn.Module):
    """Consecutive nodes that store their inputs for the backward pass, not their results.

    Attributes:
        first: the first run. Takes the activations that the region reads, then parameters and
            buffers, then labels.
        recompute: the second run, without label steps: takes no labels and returns none.
        counts: how many activations, and how many parameters and buffers.
        settings: keyword arguments of `torch.utils.checkpoint.checkpoint`.
    """

    def __init__(
        self,
        first: GraphModule,
        recompute: GraphModule,
        counts: tuple[int, int],
        settings: Settings,
    ) -> None:
        super().__init__()
        self.first = first
        self.recompute = recompute
        self.counts = counts
        self.settings = dict(settings)
        self.switches_modes = any(node.target in MODE_SWITCHES for node in recompute.graph.nodes)

    def forward(self, *inputs: Any) -> Any:
        """Run `first` now and `recompute` in the backward pass."""
        if torch.compiler.is_compiling():  # a compiler removes what is not needed itself
            return checkpoint(self.first, *inputs, use_reentrant=False, **self.settings)
        end_of_activations = self.counts[0]
        end_of_state = end_of_activations + self.counts[1]
        state = inputs[end_of_activations:end_of_state]
        labels = [inputs[end_of_state:]]  # emptied by the first run: labels are not stored

        def run(*activations: Any) -> Any:
            if labels:
                return self.first(*activations, *state, *labels.pop())
            with self._modes_kept(*activations, *state):
                return self.recompute(*activations, *state)

        activations = inputs[:end_of_activations]
        return checkpoint(run, *activations, use_reentrant=False, **self.settings)

    def _modes_kept(self, *inputs: Any) -> AbstractContextManager[None]:
        """Restore modes: the second run stops when all is recomputed, perhaps under autocast."""
        if not self.switches_modes:
            return nullcontext()
        return modes_kept(next(i.device.type for i in inputs if isinstance(i, Tensor)))


@dataclass(frozen=True, slots=True)
class _Region:
    """One checkpointed call: its nodes in order, their inputs, and the nodes that others read."""

    tag: str
    nodes: tuple[Node, ...]
    activations: tuple[Node, ...]
    state: tuple[Node, ...]
    labels: tuple[Node, ...]
    outputs: tuple[Node, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (*self.activations, *self.state, *self.labels)


def with_checkpoints(
    module: GraphModule,
    label_nodes: Collection[Node],
    state: Collection[str],
    calls: Mapping[str, Settings],
) -> GraphModule:
    """The module with the nodes of each checkpointed call in a `CheckpointedRegion`.

    Args:
        module: a flat graph; the nodes of checkpointed calls have tags
            (`labeltrace.capture.checkpoint_tags`).
        label_nodes: its label steps.
        state: the names of the placeholders of parameters and buffers.
        calls: the settings of the calls, by tag.
    """
    regions = _find_regions(list(module.graph.nodes), label_nodes, state)
    if not regions:
        return module
    ends = {region.nodes[-1]: region for region in regions}
    inside = {node for region in regions for node in region.nodes}
    graph = Graph()
    copies: dict[Node, Node] = {}
    for node in module.graph.nodes:
        if node in ends:
            region = ends[node]
            name = region.tag.replace("#", "_")
            module.add_submodule(name, _region_module(module, region, label_nodes, calls))
            values = graph.call_module(name, tuple(copies[value] for value in region.inputs))
            for index, output in enumerate(region.outputs):
                copies[output] = graph.create_node(
                    "call_function", operator.getitem, (values, index), name=output.name
                )
        elif node not in inside:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.lint()
    return GraphModule(module, graph, class_name=type(module).__name__)


def _find_regions(
    nodes: list[Node], label_nodes: Collection[Node], state: Collection[str]
) -> list[_Region]:
    """The regions in order, each from its first node to its last and the label steps after it."""
    spans: dict[str, tuple[int, int]] = {}
    for index, node in enumerate(nodes):
        tag = checkpoint_tag(node)
        if tag is not None:
            spans[tag] = (spans.get(tag, (index, index))[0], index)
    regions = []
    for tag, (first, last) in spans.items():
        while nodes[last + 1] in label_nodes:  # an output node comes last
            last += 1
        members = [node for node in nodes[first : last + 1] if node.op != "get_attr"]
        regions.append(_region(tag, members, label_nodes, state))
    return regions


def _region(
    tag: str, members: list[Node], label_nodes: Collection[Node], state: Collection[str]
) -> _Region:
    inside = set(members)
    read = dict.fromkeys(other for node in members for other in node.all_input_nodes)
    outer = [node for node in read if node not in inside]
    labels = [node for node in outer if node in label_nodes]
    of_state = [node for node in outer if node.op == "placeholder" and node.name in state]
    rest = [node for node in outer if node not in labels and node not in of_state]
    outputs = [node for node in members if any(user not in inside for user in node.users)]
    return _Region(tag, tuple(members), tuple(rest), tuple(of_state), tuple(labels), tuple(outputs))


def _region_module(
    root: GraphModule,
    region: _Region,
    label_nodes: Collection[Node],
    calls: Mapping[str, Settings],
) -> CheckpointedRegion:
    forward = [node for node in region.nodes if node not in label_nodes]
    forward_outputs = [node for node in region.outputs if node not in label_nodes]
    first = _submodule(root, region.inputs, region.nodes, region.outputs)
    inputs = (*region.activations, *region.state)
    recompute = _submodule(root, inputs, forward, forward_outputs)
    settings = calls[region.tag]
    if "context_fn" in settings:
        # Such a context sees every operator, and expects the same ones in both runs.
        return CheckpointedRegion(first, first, (len(region.inputs), 0), settings)
    counts = (len(region.activations), len(region.state))
    return CheckpointedRegion(first, recompute, counts, settings)


def _submodule(
    root: GraphModule, inputs: Iterable[Node], nodes: Iterable[Node], outputs: Iterable[Node]
) -> GraphModule:
    graph = Graph()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in outputs))
    return GraphModule(root, graph)
