"""The style of all figures: colors for any color vision, sizes for a printed page, captions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

SOURCE_COLORS = "RdBu_r"
"""Red is the first image, blue the second; they can be distinguished with any color vision."""

CHANGE_COLORS = "PuOr_r"
"""Orange is more than an even share, purple less."""

HEAT_COLORS = "inferno"
"""From black to light yellow with increasing lightness: also readable in gray."""

LINE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#000000")
"""Blue, vermilion, green and black of Okabe and Ito's palette, for any color vision."""

COLUMN_WIDTH = 3.4
"""Width of one column of a two-column page, in inches."""

PAGE_WIDTH = 7.0
"""Width of both columns, in inches."""

FONT_SIZE = 8
"""Font size, in points."""

MIN_DEVIATION = 1e-5
"""Smaller deviations are rounding errors; the color range is not stretched further."""

PANELS_PER_ROW = 4


def panels(figure: Figure | SubFigure, count: int) -> Iterator[Axes]:
    """Axes in rows of `PANELS_PER_ROW`; unused axes in the last row are hidden."""
    columns = min(count, PANELS_PER_ROW)
    axes = figure.subplots(row_count(count), columns, squeeze=False).flat
    yield from islice(axes, count)
    for empty in axes:
        empty.set_axis_off()


def row_count(count: int) -> int:
    """Number of rows for that many panels."""
    return -(-count // PANELS_PER_ROW)


def panel_figure(count: int, title: str, height: float = 1.0) -> Figure:
    """A figure of page width for that many panels, each `height` times as high as wide."""
    columns = min(count, PANELS_PER_ROW)
    width = PAGE_WIDTH * columns / PANELS_PER_ROW if columns > 2 else COLUMN_WIDTH
    each = (width - 0.7) / columns
    size = (width, row_count(count) * (each * height + 0.5) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=FONT_SIZE + 1)
    return figure


def show_pixels(axes: Axes, pixels: Tensor) -> None:
    """Draw an image (3, H, W) in [0, 1]."""
    axes.imshow(pixels.detach().cpu().permute(1, 2, 0).numpy())


def image_and_panels(
    pixels: Tensor, count: int, title: str, caption: str
) -> tuple[Figure, list[Axes]]:
    """A figure with an image (3, H, W) in its first panel, and `count` empty panels."""
    figure = panel_figure(1 + count, title, height=pixels.shape[1] / pixels.shape[2])
    first, *others = panels(figure, 1 + count)
    show_pixels(first, pixels)
    frame(first, caption, size=FONT_SIZE)
    return figure, others


def frame(axes: Axes, title: str, below: str = "", size: int = FONT_SIZE + 3) -> None:
    """Write a title above and a caption below a picture, and remove its ticks."""
    axes.set_title(title, fontsize=size)
    axes.set_xlabel(below, fontsize=size - 1)
    axes.set_xticks([])
    axes.set_yticks([])


def legend_bar(
    figure: Figure | SubFigure,
    colors: str,
    limits: tuple[float, float],
    ticks: dict[float, str],
    label: str = "",
) -> None:
    """Add a color bar to the right of all panels, with labels at its ticks."""
    shown = ScalarMappable(Normalize(*limits), colors)
    tall = figure.bbox.height > figure.bbox.width
    bar = figure.colorbar(shown, ax=figure.axes, shrink=0.5 if tall else 0.9, aspect=25, pad=0.02)
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.ax.tick_params(labelsize=FONT_SIZE - 1)
    bar.set_label(label, fontsize=FONT_SIZE)


def mean_and_deviation(shares: Tensor) -> tuple[float, float]:
    """The mean of a map, and the largest deviation of its values from the mean."""
    mean = shares.mean().item()
    return mean, max((shares - mean).abs().max().item(), MIN_DEVIATION)


def percent(share: float) -> str:
    """A share as text, such as `12.3 %`."""
    return f"{100 * share:.1f} %"
