"""The paper's own method, for comparison: a label entry for every class, materialized attention.

The paper's code keeps a distribution over all classes at every token and multiplies it by attention
maps that the model materializes. Here this method is derived from an aligned model. The model
materializes its maps. Where its label graph has pooled the label image to the first grid of tokens,
the two sources of each image are replaced with the image's classes. All later labels have one entry
for each class; the labels of the output are the class targets (B, classes).
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

import labeltrace
from labeltrace import label_ops


def disable_fused_attention(model: nn.Module) -> None:
    """Make every attention of a timm model materialize its map, as the paper's method needs it."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False


class DenseLabels(nn.Module):
    """A model with labels over classes; `forward` returns logits and targets (B, classes)."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        super().__init__()
        disable_fused_attention(model)
        self.model = model
        graphs = labeltrace.align(model, example)._engines.graphs
        graph = graphs.graph((example,), {})
        self.state = tuple(entry.name.split(".") for entry in graph.capture.state)
        self.constants = graph.capture.constants
        self.labeled = _over_classes(graph.generated.module)

    def forward(self, images: Tensor, labels: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and targets, from `labels` (B, K, H, W) and `classes` (B, K, classes)."""
        state = [functools.reduce(getattr, names, self.model) for names in self.state]
        logits, targets = self.labeled(*state, *self.constants, images, labels, classes)
        return logits, targets


def _over_classes(module: GraphModule) -> GraphModule:
    """The generated module, with labels over classes from the first grid of tokens on."""
    graph = Graph()
    copies: dict[Node, Node] = {}
    sources: list[Any] = []
    for node in module.graph.nodes:
        if node.op == "output":
            graph.output(map_arg(node.args[0], copies.__getitem__))
            continue
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if node.op == "placeholder" and node.name == "labels":
            classes = graph.placeholder("classes")
        if node.target in (label_ops.pool, label_ops.prior_of) and node.args[0] in sources:
            copies[node] = graph.call_function(to_classes, (copies[node], classes))
        if node.target is label_ops.read_image:
            sources.append(node)
    if not any(node.target is to_classes for node in graph.nodes):
        raise ValueError(
            "the label graph does not pool the label image, so there are no tokens; use a model "
            "with a patch embedding or strided convolutions"
        )
    return GraphModule(module, graph)


def to_classes(field: Tensor, classes: Tensor) -> Tensor:
    """Convert a field (B, ..., K) over sources to a field over classes."""
    mixed = field.reshape(field.shape[0], -1, field.shape[-1]) @ classes
    return mixed.reshape(*field.shape[:-1], classes.shape[-1])
