"""The command line: `labeltrace explain`, `demo`, `report`, `train` and `zoo`."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from labeltrace.aligned import trace
from labeltrace.cli.errors import add_cwd_to_path, report_errors
from labeltrace.cli.optional import add_optional
from labeltrace.cli.terminal import wide_console
from labeltrace.model_loading import load_model
from labeltrace.tracing.summaries import node_table
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.traced_node import TracedNode
from labeltrace.version import __version__

app = typer.Typer(
    help="Follow labels through any vision model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def labeltrace_options(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Follow labels through any vision model."""
    if version:
        typer.echo(f"labeltrace {__version__}")


@app.command()
def explain(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A timm name, or package.module:factory.")
    ],
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Height and width; default: the model's.")
    ] = None,
    train: Annotated[bool, typer.Option("--train/--eval", help="The model's mode.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="List only the approximate nodes.")
    ] = False,
) -> None:
    """Say what every node of a model does to labels, grouped by module."""
    add_cwd_to_path()
    # What a factory prints must not mix with the output.
    with report_errors(), contextlib.redirect_stdout(sys.stderr):
        loaded = load_model(model, image_size=image_size, device="meta")
        found = trace(loaded.model.train(train), loaded.example())
    mode = "train" if train else "eval"
    nodes = found.approximate if approximate else found.nodes
    if as_json:
        document = {"model": model, "mode": mode, "input_size": loaded.input_size}
        typer.echo(json.dumps({**document, **trace_document(found, nodes)}, indent=2))
        return
    console = wide_console()
    console.print(node_table(nodes, f"{model}, {mode} mode, input {loaded.input_size}"))
    console.print(counts_table(found), approximations_table(found))
    console.print(f"Batch: {batch_text(found)}", markup=False)


add_optional(app, "demo")
add_optional(app, "report")
add_optional(app, "train")
add_optional(app, "zoo")


# Output of explain. -------------------------------------------------------------------------------


def trace_document(found: Trace, nodes: tuple[TracedNode, ...]) -> dict[str, Any]:
    """A trace and some of its nodes as plain data for JSON."""
    batch = found.capture.batch
    return {
        "batch": {
            "dynamic": batch.dynamic,
            "smallest": batch.smallest,
            "largest": None if math.isinf(batch.largest) else int(batch.largest),
            "fixed_because": batch.fixed_reason or None,
        },
        "counts": found.counts(),
        "approximations": [
            {"reason": reason, "count": len(names), "nodes": names}
            for reason, names in _approximations(found).items()
        ],
        "nodes": [
            {
                "name": node.name,
                "operator": node.operator,
                "operation": str(node.operation),
                "module": node.module_path,
                "module_type": node.location.module_type,
                "source_line": node.source_line,
                "layout": None if node.layout is None else str(node.layout),
                "labeled": node.labeled,
                "inputs": node.inputs,
                "exact": node.exact,
                "approximation": node.approximation or None,
            }
            for node in nodes
        ],
    }


def counts_table(found: Trace) -> Table:
    """The number of nodes of each operation."""
    table = Table("operation", title="Counts", title_justify="left")
    table.add_column("nodes", justify="right")
    for operation, count in found.counts().items():
        table.add_row(operation, str(count))
    return table


def approximations_table(found: Trace) -> Table | str:
    """The reasons why nodes are approximate, with the number of nodes for each."""
    approximations = _approximations(found)
    if not approximations:
        return "Approximations: none, every node is exact."
    table = Table("reason", title="Approximations", title_justify="left")
    table.add_column("nodes", justify="right")
    for reason, names in approximations.items():
        table.add_row(reason, str(len(names)))
    return table


def batch_text(found: Trace) -> str:
    """The batch sizes that the captured graph supports, and the reason."""
    batch = found.capture.batch
    if not batch.dynamic:
        return f"fixed at {batch.smallest}, because {batch.fixed_reason}"
    rest = f" of remainder {batch.remainder} by {batch.step}" if batch.step > 1 else ""
    if math.isinf(batch.largest):
        return f"dynamic, {batch.smallest} or more images{rest}"
    return f"dynamic, {batch.smallest} to {int(batch.largest)} images{rest}"


def _approximations(found: Trace) -> dict[str, list[str]]:
    """The names of the approximate nodes, by reason."""
    names: dict[str, list[str]] = {}
    for node in found.approximate:
        names.setdefault(node.approximation, []).append(node.name)
    return names
