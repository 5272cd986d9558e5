"""`labeltrace demo`: two photographs through four models, as a table and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from huggingface_hub.utils.tqdm import disable_progress_bars
from rich.console import Console

from labeltrace.cli.errors import errors_told
from labeltrace.cli.terminal import wide_console
from labeltrace.extras import extra
from labeltrace.photographs import read_photograph, sample_photographs

with extra("demo"):
    from labeltrace.demo import run_demo

FIGURE_NAME = "label_maps.png"
FIGURE_DPI = 110


def demo_command(
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Trained weights, fetched by timm.")
    ] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="The figure's folder.")
    ] = Path("demo"),
    images: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="FIRST SECOND", help="Two image files of your own."),
    ] = None,
) -> None:
    """Follow the labels of two CutMix-ed photographs through DeiT, Swin, Mixer and ConvNeXt."""
    disable_progress_bars()  # of downloads: they would write across the spinner
    with errors_told():
        photographs = (
            (read_photograph(images[0]), read_photograph(images[1]))
            if images
            else sample_photographs()
        )
        _make_folder(output)
        result = run_demo(photographs, pretrained=pretrained, console=Console(stderr=True))
    console = wide_console()
    console.print(result.table())
    console.print(result.weights(), markup=False)
    path = output / FIGURE_NAME
    result.figure().savefig(path, dpi=FIGURE_DPI)
    console.print(f"Figure: {path}", markup=False, soft_wrap=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"cannot make the folder {folder}: {error.strerror}") from error
