"""Summaries of a trace: the label flow as a `networkx` graph, its nodes as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from labeltrace.flow import Operation
from labeltrace.tracing.traced_node import TracedNode

if TYPE_CHECKING:
    import networkx
    from rich.table import Table

COLORS = {
    Operation.SPATIAL_MIXING: "magenta",
    Operation.CHANNEL_MIXING: "cyan",
    Operation.POINTWISE: "white",
    Operation.RESIDUAL: "green",
    Operation.SPATIAL_AGGREGATION: "yellow",
    Operation.RELAYOUT: "blue",
    Operation.WEIGHTS: "bright_black",
}


def flow_graph(nodes: Iterable[TracedNode]) -> networkx.DiGraph:
    """The label flow: a node for each traced call, an edge where one reads another's output.

    Nodes have the attributes `operator`, `operation`, `module_path`, `source_line`, `layout` (as
    text), `exact` and `approximation`.
    """
    import networkx  # here, since importing it takes long

    graph = networkx.DiGraph()
    for node in nodes:
        if node.operation is Operation.CONSTANT:
            continue
        graph.add_node(
            node.name,
            operator=node.operator,
            operation=str(node.operation),
            module_path=node.module_path,
            source_line=node.source_line,
            layout=str(node.layout),
            exact=node.exact,
            approximation=node.approximation,
        )
        graph.add_edges_from((name, node.name) for name in node.inputs)
    return graph


def node_table(nodes: Sequence[TracedNode], title: str = "") -> Table:
    """The nodes as a table, grouped by module; constants are left out."""
    from rich.table import Table  # here, since importing it takes long

    table = Table(title=title or None, show_lines=False)
    for heading in ("module", "node", "operator", "operation", "layout", "exact"):
        table.add_column(heading, overflow="fold")
    previous = None
    for node in nodes:
        if node.operation is Operation.CONSTANT:
            continue
        path = node.module_path or "(model)"
        color = COLORS.get(node.operation, "white")
        table.add_row(
            path if path != previous else "",
            node.name,
            node.operator,
            f"[{color}]{node.operation}[/]",
            str(node.layout),
            "yes" if node.exact else node.approximation,
        )
        previous = path
    return table
