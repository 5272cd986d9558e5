"""Drawing functions of all pictures: maps of labels with cells, outlines and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from labeltrace.figures.style import FONT_SIZE, PAGE_WIDTH, SOURCE_COLORS

SOURCES = ListedColormap(colormaps[SOURCE_COLORS](numpy.linspace(0.12, 0.88, 256)), "sources")
"""Red and blue as in all figures, without the darkest colors, so that numbers are readable."""

WEIGHTS = ListedColormap(colormaps["Purples"](numpy.linspace(0, 0.85, 256)), "weights")
"""White is no weight."""

HALF_BRIGHT = 1.5  # sum of red, green and blue


def make_figure(
    columns: int, rows: int = 1, *, height: float, width: float = PAGE_WIDTH
) -> tuple[Figure, list[Axes]]:
    """A figure (sizes in inches) and its axes, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def cells(
    axes: Axes,
    values: Tensor,
    title: str = "",
    below: str = "",
    *,
    colors: Colormap | str = SOURCES,
    limits: tuple[float, float] = (0, 1),
    numbers: str = "",
) -> None:
    """A map (rows, columns) with a line around each cell.

    Args:
        axes: where to draw it.
        values: the values that are shown as colors; NaN cells are hatched.
        title: text above the map.
        below: text below the map.
        colors: a color map, or the name of a Matplotlib color map.
        limits: the values at the ends of the color map.
        numbers: format of the value in each cell; empty for no numbers.
    """
    rows, columns = values.shape
    line = 0.8 if rows <= 8 else 0.4
    axes.pcolormesh(
        values.numpy(),
        cmap=colors,
        vmin=limits[0],
        vmax=limits[1],
        edgecolors="white",
        linewidth=line,
        antialiased=True,
    )
    shades = colormaps.get_cmap(colors)
    for row, column in _indices(rows, columns):
        value = values[row, column].item()
        if math.isnan(value):
            _hatch(axes, row, column)
        elif numbers:
            shade = shades((value - limits[0]) / (limits[1] - limits[0]))
            axes.text(
                column + 0.5,
                row + 0.5,
                format(value, numbers),
                ha="center",
                va="center",
                fontsize=FONT_SIZE - 1,
                color="white" if sum(shade[:3]) < HALF_BRIGHT else "black",
            )
    square(axes, title, below, (rows, columns))


def square(axes: Axes, title: str, below: str, shape: tuple[int, int]) -> None:
    """Set up axes with square cells, the first row at the top, text, and no ticks or frame."""
    axes.set(xlim=(-0.1, shape[1] + 0.1), ylim=(shape[0] + 0.1, -0.1), aspect="equal")
    axes.set_title(title, fontsize=FONT_SIZE + 1)
    axes.set_xlabel(below, fontsize=FONT_SIZE)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def outline(
    axes: Axes,
    row: float,
    column: float,
    height: float = 1,
    width: float = 1,
    *,
    color: str = "black",
    line: float = 1.8,
) -> None:
    """Draw a frame around some cells."""
    frame = Rectangle(
        (column, row), width, height, fill=False, clip_on=False, edgecolor=color, linewidth=line
    )
    axes.add_patch(frame)


def blocks(axes: Axes, shape: tuple[int, int], size: int) -> None:
    """Draw frames around all blocks of `size` × `size` cells."""
    for row in range(0, shape[0], size):
        for column in range(0, shape[1], size):
            outline(axes, row, column, size, size, line=0.8)


def between(axes: Axes, sign: str) -> None:
    """Write a sign in the gap to the right of the axes."""
    axes.annotate(
        sign,
        (1.0, 0.5),
        xycoords="axes fraction",
        xytext=(10, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=15,
        annotation_clip=False,
    )


def box_labels(rows: int, columns: int, box: tuple[float, float, float, float]) -> Tensor:
    """Shares (rows, columns) of the first image, after a box of the second was pasted.

    Args:
        rows: number of rows of the map.
        columns: number of columns of the map.
        box: top, left, bottom and right edge in cells; edges may be inside a cell.
    """
    top, left, bottom, right = box
    tall = _covered(rows, top, bottom)
    wide = _covered(columns, left, right)
    return 1 - tall[:, None] * wide


def _covered(count: int, start: float, stop: float) -> Tensor:
    edges = torch.arange(count + 1, dtype=torch.float32).clamp(start, stop)
    return edges.diff()


def _indices(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    return ((row, column) for row in range(rows) for column in range(columns))


def _hatch(axes: Axes, row: int, column: int) -> None:
    patch = Rectangle((column, row), 1, 1, facecolor="white", edgecolor="#999999", linewidth=0)
    patch.set_hatch("////")
    axes.add_patch(patch)
