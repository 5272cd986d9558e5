"""`labeltrace report`: a model as one interactive page."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from huggingface_hub.utils.tqdm import disable_progress_bars
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from labeltrace.cli.errors import add_cwd_to_path, report_errors
from labeltrace.model_loading import load_or_random
from labeltrace.photographs import read_photograph, sample_photographs
from labeltrace.report import atomic_text_file, build_report, render_page

SIZE_PATTERN = re.compile(r"(\d+)(?:x(\d+))?")


def report_command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A timm name, or package.module:factory.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page, an HTML file.")] = Path(
        "report.html"
    ),
    images: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="FIRST SECOND", help="Your own two image files."),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="224, or HEIGHTxWIDTH; default: the model's."),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Trained weights, downloaded by timm.")
    ] = False,
) -> None:
    """Write an interactive HTML page: what a model does with the tokens of two photographs."""
    size = _parse_size(image_size)
    add_cwd_to_path()
    disable_progress_bars()  # progress bars of downloads would overwrite the report's own
    console = Console(stderr=True)
    started = time.monotonic()
    with report_errors(), atomic_text_file(output) as write, contextlib.redirect_stdout(sys.stderr):
        if images is not None:  # before the model is built, which takes longer
            for path in images:
                read_photograph(path)
        with _make_progress(console) as progress:
            task = progress.add_task(f"building {model}", total=None)
            loaded, missing = load_or_random(model, pretrained=pretrained, image_size=size)
            progress.remove_task(task)
            if missing:
                console.print(f"{model} has random weights: {missing}", markup=False)
            model_size = loaded.input_size[1:]
            if loaded.size_assumed:
                console.print(
                    f"{model} does not state its image size; assuming {model_size[0]} x "
                    f"{model_size[1]} pixels. Set another size with --image-size",
                    markup=False,
                )
            photographs = (
                (read_photograph(images[0], model_size), read_photograph(images[1], model_size))
                if images
                else sample_photographs(model_size)
            )
            report = build_report(
                model,
                loaded,
                photographs,
                weights=_describe_weights(model, random=not pretrained or bool(missing)),
                progress=progress,
            )
        text = render_page(report)
        write(text)
    seconds = time.monotonic() - started
    typer.echo(f"Report: {output} ({len(text.encode()) / 2**20:.1f} MB, {seconds:.0f} s)")


def _describe_weights(model: str, *, random: bool) -> str:
    if ":" in model:
        return "Weights as built by the factory."
    if random:
        return "Random weights: without training, tokens blend towards the average of all."
    return "Trained weights."


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = SIZE_PATTERN.fullmatch(text)
    if found is None or 0 in (sizes := (int(found[1]), int(found[2] or found[1]))):
        raise typer.BadParameter(
            f"{text} is no image size; write 224, or 192x320 for height and width"
        )
    return sizes


def _make_progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
