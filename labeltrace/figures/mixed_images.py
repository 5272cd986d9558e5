"""Mixed images and where each of their pixels comes from: Figure 7."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from labeltrace.figures.style import (
    SOURCE_COLOURS,
    TEXT,
    frame,
    legend_bar,
    panel_figure,
    percent,
    show_pixels,
)


def mixed_image_figure(
    mixtures: Mapping[str, tuple[Tensor, Tensor]], sources: tuple[str, str]
) -> Figure:
    """Each mixture above the map of its labels.

    Args:
        mixtures: by the name of the strategy, the mixed pixels (3, H, W) in [0, 1] and their label
            image (2, H, W) or (2, 1, 1).
        sources: what the first and the second image are called.

    Raises:
        ValueError: there is no mixture.
    """
    if not mixtures:
        raise ValueError("mixed_image_figure needs at least one mixture, got none")
    figure = panel_figure(max(len(mixtures), 2), "", height=2.2)
    upper, lower = figure.subplots(2, len(mixtures), squeeze=False)
    for above, below, (name, (pixels, labels)) in zip(upper, lower, mixtures.items(), strict=True):
        show_pixels(above, pixels)
        frame(above, name, size=TEXT)
        share = labels[0].expand(pixels.shape[1:]).detach().cpu()
        below.imshow(share.numpy(), cmap=SOURCE_COLOURS, vmin=0, vmax=1)
        frame(below, "", f"{percent(share.mean().item())} {sources[0]}", size=TEXT)
    legend_bar(figure, SOURCE_COLOURS, (0, 1), {0: sources[1], 0.5: "half", 1: sources[0]})
    return figure
