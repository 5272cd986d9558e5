"""Label maps of one model layer by layer, in the style of Figures 5 and 8 of the paper."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from labeltrace.figures.style import (
    FONT_SIZE,
    SOURCE_COLORS,
    frame,
    image_and_panels,
    legend_bar,
    mean_and_deviation,
    percent,
)


def layer_map_figure(
    pixels: Tensor,
    maps: Mapping[str, Tensor],
    sources: tuple[str, str],
    *,
    stretched: bool = False,
    title: str = "",
) -> Figure:
    """A mixed image, and one map for each layer: the share of the first image in each token.

    Args:
        pixels: (3, H, W) in [0, 1].
        maps: by the name of the layer, (rows, columns) in [0, 1], such as
            `{name: layer.map()[0, 0] for name, layer in labels_at(...).items()}`.
        sources: names of the first and the second image.
        stretched: give each map its own range of colors around its mean, because deep or untrained
            models blend labels until they are nearly equal; the range is written below the map.
        title: title of the figure.

    Raises:
        ValueError: there is no map.

    Examples:
        >>> import torch
        >>> from labeltrace.figures import layer_map_figure
        >>> maps = {"blocks.0": torch.rand(4, 4), "blocks.1": torch.rand(4, 4)}
        >>> figure = layer_map_figure(torch.rand(3, 32, 32), maps, ("cat", "dog"))
    """
    if not maps:
        raise ValueError(
            "layer_map_figure needs the map of at least one layer, got none; get them from "
            "labeltrace.labels_at"
        )
    figure, others = image_and_panels(pixels, len(maps), title, "mixed image")
    for axes, (name, shares) in zip(others, maps.items(), strict=True):
        shares = shares.detach().cpu()
        mean, deviation = mean_and_deviation(shares)
        low, high = (mean - deviation, mean + deviation) if stretched else (0, 1)
        extent = (0, pixels.shape[2], pixels.shape[1], 0)
        axes.imshow(shares.numpy(), cmap=SOURCE_COLORS, vmin=low, vmax=high, extent=extent)
        below = f"{percent(mean)} ± {100 * deviation:.2g}" if stretched else percent(mean)
        frame(axes, name, below, size=FONT_SIZE)
    if stretched:
        ticks = {0.0: f"more\n{sources[1]}", 0.5: "mean", 1.0: f"more\n{sources[0]}"}
    else:
        ticks = {0.0: sources[1], 0.5: "half", 1.0: sources[0]}
    legend_bar(figure, SOURCE_COLORS, (0, 1), ticks)
    return figure
