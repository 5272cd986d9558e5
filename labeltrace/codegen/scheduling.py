"""When label steps run: as soon as what they read is there.

Label steps are small.  Alone between two layers each would find its code and its labels gone from
the processor's caches; steps that depend on one another run well one after the other.  Those of a
network whose mixing does not depend on its input (ConvNeXt, MLP-Mixer) all run before its layers.
"""

from __future__ import annotations

from collections.abc import Collection

from torch.fx import Graph, Node

from labeltrace.capture.node_info import overwritten_memory, storage_of


def run_early(graph: Graph, labels: Node, label_nodes: Collection[Node]) -> None:
    """Move the label steps of a graph behind the last node that each reads.

    A step stays where it is if it reads memory that some node writes to, or such a step's result,
    which may be a view of it.  Other nodes keep their order.

    Args:
        graph: forward and label nodes side by side; changed in place.
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
    last, *rest = sorted(graph.nodes, key=slots.__getitem__)  # in one slot as they stood
    for node in rest:
        last.append(node)
        last = node
