"""A trace for people: the label flow as a graph, its nodes as a table, the stub of a rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import networkx
from rich.table import Table

from labeltrace.flow import Operation
from labeltrace.layout import shape_text
from labeltrace.node import TracedNode

COLOURS = {
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

    Nodes have the attributes ``operator``, ``operation``, ``module_path``, ``source_line``,
    ``layout`` (in words), ``exact`` and ``approximation``.
    """
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
    table = Table(title=title or None, show_lines=False)
    for heading in ("module", "node", "operator", "operation", "layout", "exact"):
        table.add_column(heading, overflow="fold")
    previous = None
    for node in nodes:
        if node.operation is Operation.CONSTANT:
            continue
        path = node.module_path or "(model)"
        colour = COLOURS.get(node.operation, "white")
        table.add_row(
            path if path != previous else "",
            node.name,
            node.operator,
            f"[{colour}]{node.operation}[/]",
            str(node.layout),
            "yes" if node.exact else node.approximation,
        )
        previous = path
    return table


def rule_stub(operator: str, arguments: Sequence[str], outputs: Sequence[Sequence[int]]) -> str:
    """The source of a rule for an operator, ready to paste and to fill in.

    It runs as it stands and treats the operator as point-wise on its first traced argument, which
    is for the user to confirm or to change.
    """
    name = operator.split(".")[1] if "." in operator else operator
    shapes = ", ".join(shape_text(shape) for shape in outputs)
    return (
        "from labeltrace.combination import carry\n"
        "\n"
        f"def {name.strip('_')}(call):\n"
        f'    """{operator}({", ".join(arguments)}) -> {shapes}."""\n'
        "    # Each value depends on the same position alone? Then the label stays:\n"
        "    return carry(call.traced[0], call.output)\n"
        "    # Else see the rules in labeltrace.rules for mixing, aggregation and views.\n"
        "\n"
        f'labeltrace.align(model, rules={{"{operator}": {name.strip("_")}}})'
    )
