"""The layers of a model: the stops of the report's slider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from labeltrace.inspection.places import Place
from labeltrace.report.module_tree import ModuleTree
from labeltrace.tracing.ablation import moves_labels
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.traced_node import TracedNode


@dataclass(frozen=True, slots=True)
class Stop:
    """The end of a layer.

    Attributes:
        title: title of the layer.
        node: the node whose tensor the layer returns.
        module: index of its module; None for a node outside the folded modules.
    """

    title: str
    node: str
    module: int | None


def find_stops(trace: Trace, tree: ModuleTree, places: Mapping[str, Place]) -> tuple[Stop, ...]:
    """The image, each folded module or single step that moves labels, and the output, in order."""
    last: dict[int | str, Stop] = {}
    for node in trace.nodes:
        if node.name not in places:
            continue
        unit = tree.folded_module(node.module_path)
        if unit is not None:
            module = tree.modules[unit]
            last[unit] = Stop(f"{module.path} · {module.kind}", node.name, unit)
        elif _moves(trace, node):
            where = node.module_path or node.name
            last[node.name] = Stop(f"{where} · {node.operation}", node.name, None)
    ordered = sorted(last.values(), key=lambda stop: trace.order[stop.node])
    found = [Stop("the mixed image", trace.capture.traced_input, None)]
    for stop in (*ordered, *_output_stop(trace, places)):
        if places[stop.node].field != places[found[-1].node].field:
            found.append(stop)
    return tuple(found)


def _moves(trace: Trace, node: TracedNode) -> bool:
    return any(moves_labels(trace.steps[field]) for field in trace.fields_of(node.name))


def _output_stop(trace: Trace, places: Mapping[str, Place]) -> tuple[Stop, ...]:
    """The first node that computes the label of the model's first output with labels."""
    fields = [value.field for value in trace.outputs if value is not None and value.field]
    nodes = [node for node, place in places.items() if fields and place.field == fields[0]]
    return (Stop("the output", nodes[0], None),) if nodes else ()
