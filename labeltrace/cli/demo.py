"""`labeltrace demo`: the labels of two photographs in four models, as a table and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from huggingface_hub.utils.tqdm import disable_progress_bars
from rich.console import Console

from labeltrace.cli.errors import report_errors
from labeltrace.cli.terminal import wide_console
from labeltrace.extras import extra
from labeltrace.photographs import read_photograph, sample_photographs

with extra("demo"):
    from labeltrace.demo import run_demo

FIGURE_NAME = "label_maps.png"
FIGURE_DPI = 110


def demo_command(
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
    console = wide_console()
    console.print(result.table())
    console.print(result.weights(), markup=False)
    path = output / FIGURE_NAME
    result.figure().savefig(path, dpi=FIGURE_DPI)
    console.print(f"Figure: {path}", markup=False, soft_wrap=True)


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(
            f"cannot create the folder {folder}: {error.strerror}; give another one with --output"
        ) from error
