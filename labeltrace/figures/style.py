"""What all figures share: colours for any colour vision, sizes for a printed page, frames."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

SOURCE_COLOURS = "RdBu_r"
"""Red is the first image, blue the second: readers with any colour vision tell the two apart."""

CHANGE_COLOURS = "PuOr_r"
"""Orange is more than an even share, purple less."""

HEAT_COLOURS = "inferno"
"""From black to light yellow, lighter throughout: readable in grey as well."""

LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000")
"""Blue, vermilion, green and black of Okabe and Ito's palette, for any colour vision."""

COLUMN_WIDTH = 3.4
"""Inches, of one column of a two-column page."""

PAGE_WIDTH = 7.0
"""Inches, of both."""

TEXT = 8
"""Points."""

SMALLEST_REACH = 1e-5
"""Differences below this are rounding, and not stretched to full colour."""

PANELS_A_ROW = 4


def panels(figure: Figure | SubFigure, count: int) -> Iterator[Axes]:
    """Axes in rows of :data:`PANELS_A_ROW`; those that are left over stay empty."""
    columns = min(count, PANELS_A_ROW)
    axes = figure.subplots(rows_of(count), columns, squeeze=False).flat
    yield from islice(axes, count)
    for empty in axes:
        empty.set_axis_off()


def rows_of(count: int) -> int:
    """How many rows that many panels take."""
    return -(-count // PANELS_A_ROW)


def panel_figure(count: int, title: str, height: float = 1.0) -> Figure:
    """A figure of the page's width for that many panels, each ``height`` times as high as wide."""
    columns = min(count, PANELS_A_ROW)
    width = PAGE_WIDTH * columns / PANELS_A_ROW if columns > 2 else COLUMN_WIDTH
    each = (width - 0.7) / columns
    size = (width, rows_of(count) * (each * height + 0.5) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=TEXT + 1)
    return figure


def show_pixels(axes: Axes, pixels: Tensor) -> None:
    """An image (3, H, W) in [0, 1]."""
    axes.imshow(pixels.detach().cpu().permute(1, 2, 0).numpy())


def beside_image(pixels: Tensor, count: int, title: str, caption: str) -> tuple[Figure, list[Axes]]:
    """A figure whose first panel is an image (3, H, W), and ``count`` empty ones of its shape."""
    figure = panel_figure(1 + count, title, height=pixels.shape[1] / pixels.shape[2])
    first, *others = panels(figure, 1 + count)
    show_pixels(first, pixels)
    frame(first, caption, size=TEXT)
    return figure, others


def frame(axes: Axes, title: str, below: str = "", size: int = TEXT + 3) -> None:
    """A picture with words above and below, and no ticks."""
    axes.set_title(title, fontsize=size)
    axes.set_xlabel(below, fontsize=size - 1)
    axes.set_xticks([])
    axes.set_yticks([])


def legend_bar(
    figure: Figure | SubFigure,
    colours: str,
    limits: tuple[float, float],
    ticks: dict[float, str],
    label: str = "",
) -> None:
    """A bar of colours to the right of all panels, with words at its ticks."""
    shown = ScalarMappable(Normalize(*limits), colours)
    tall = figure.bbox.height > figure.bbox.width
    bar = figure.colorbar(shown, ax=figure.axes, shrink=0.5 if tall else 0.9, aspect=25, pad=0.02)
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.ax.tick_params(labelsize=TEXT - 1)
    bar.set_label(label, fontsize=TEXT)


def mean_and_reach(shares: Tensor) -> tuple[float, float]:
    """The mean of a map, and how far its values lie from it at most."""
    mean = shares.mean().item()
    return mean, max((shares - mean).abs().max().item(), SMALLEST_REACH)


def percent(share: float) -> str:
    """A share in words, ``12.3 %``."""
    return f"{100 * share:.1f} %"
