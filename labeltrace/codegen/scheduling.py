"""When label steps run: as soon as what they read is computed.

Label steps are small. A single one between two layers finds its code and its labels evicted from
the CPU's caches, so steps that depend on one another run one after the other. If a network's mixing
does not depend on its input (ConvNeXt, MLP-Mixer), all of its label steps run before its layers.
"""

from __future__ import annotations

from collections.abc import Collection

from torch.fx import Graph, Node

from labeltrace.capture.node_info import overwritten_memory, storage_of


def run_early(graph: Graph, labels: Node, label_nodes: Collection[Node]) -> None:
    """Move each label step of a graph to directly after the last node that it reads.

    A step stays where it is if it reads memory that some node writes to, or the result of such a
    step, which may be a view of it. Other nodes keep their order.

    Args:
        graph: forward and label nodes; changed in place.
        labels: the placeholder of the label image, the last one.
        label_nodes: the label steps.
    """
    overwritten = overwritten_memory(graph)
    pinned: set[Node] = set()
    slots: dict[Node, int] = {}
    for index, node in enumerate(graph.nodes):
        slots[node] = index
        if node not in label_nodes:
            continue
        read = node.all_input_nodes
        if any(other in pinned or storage_of(other) in overwritten for other in read):
            pinned.add(node)
            continue
        slots[node] = max(slots[other] for other in (labels, *read))
    last, *rest = sorted(graph.nodes, key=slots.__getitem__)  # stable within a slot
    for node in rest:
        last.append(node)
        last = node
