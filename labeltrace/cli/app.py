"""The command line: `labeltrace explain`, `demo`, `report`, `train` and `zoo`."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from huggingface_hub.utils.tqdm import disable_progress_bars
from rich.console import Console
from rich.table import Table

import labeltrace
from labeltrace.aligned import trace
from labeltrace.cli.errors import add_cwd_to_path, report_errors
from labeltrace.cli.report import report_command
from labeltrace.cli.train import train_command
from labeltrace.cli.zoo import app as zoo
from labeltrace.demo import run_demo
from labeltrace.model_loading import load_model
from labeltrace.photographs import read_photograph, sample_photographs
from labeltrace.tracing.summaries import node_table
from labeltrace.tracing.traced_node import TracedNode
from labeltrace.tracing.walk import Trace

NON_TTY_WIDTH = 160  # columns if the output is no terminal
FIGURE_NAME = "label_maps.png"
FIGURE_DPI = 110

app = typer.Typer(
    help="Follow labels through any vision model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(zoo, name="zoo")
app.command("report")(report_command)
app.command("train")(train_command)


def main() -> None:
    """Run the command line."""
    app()


@app.callback(invoke_without_command=True)
def labeltrace_options(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Follow labels through any vision model."""
    if version:
        typer.echo(f"labeltrace {labeltrace.__version__}")


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
    console = _make_console()
    console.print(node_table(nodes, f"{model}, {mode} mode, input {loaded.input_size}"))
    console.print(counts_table(found), approximations_table(found))
    console.print(f"Batch: {batch_text(found)}", markup=False)


@app.command()
def demo(
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Trained weights, downloaded by timm.")
    ] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="Folder for the figure.")
    ] = Path("demo"),
    images: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="FIRST SECOND", help="Your own two image files."),
    ] = None,
) -> None:
    """Follow the labels of two photographs mixed by CutMix in DeiT, Swin, Mixer and ConvNeXt."""
    disable_progress_bars()  # progress bars of downloads would overwrite the spinner
    with report_errors():
        photographs = (
            (read_photograph(images[0]), read_photograph(images[1]))
            if images
            else sample_photographs()
        )
        _create_folder(output)
        result = run_demo(photographs, pretrained=pretrained, console=Console(stderr=True))
    console = _make_console()
    console.print(result.table())
    console.print(result.weights(), markup=False)
    path = output / FIGURE_NAME
    result.figure().savefig(path, dpi=FIGURE_DPI)
    console.print(f"Figure: {path}", markup=False, soft_wrap=True)


# Output of explain. -------------------------------------------------------------------------------


def trace_document(found: Trace, nodes: tuple[TracedNode, ...]) -> dict[str, Any]:
    """A trace and some of its nodes as plain data for JSON."""
    smallest, largest = found.capture.batch_range
    return {
        "batch": {
            "dynamic": found.capture.dynamic_batch,
            "smallest": smallest,
            "largest": None if math.isinf(largest) else int(largest),
            "fixed_because": found.capture.fixed_batch_reason or None,
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
                "labelled": node.labelled,
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
    smallest, largest = found.capture.batch_range
    if not found.capture.dynamic_batch:
        return f"fixed at {smallest}, because {found.capture.fixed_batch_reason}"
    if math.isinf(largest):
        return f"dynamic, {smallest} or more images"
    return f"dynamic, {smallest} to {int(largest)} images"


def _approximations(found: Trace) -> dict[str, list[str]]:
    """The names of the approximate nodes, by reason."""
    names: dict[str, list[str]] = {}
    for node in found.approximate:
        names.setdefault(node.approximation, []).append(node.name)
    return names


# Helpers of the commands. -------------------------------------------------------------------------


def _make_console() -> Console:
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if known else NON_TTY_WIDTH)


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(
            f"cannot create the folder {folder}: {error.strerror}; give another one with --output"
        ) from error
