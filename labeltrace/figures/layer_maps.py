"""Label maps layer by layer: Figures 5 and 8 for one model, all the way through."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from labeltrace.figures.style import (
    SOURCE_COLOURS,
    TEXT,
    beside_image,
    frame,
    legend_bar,
    mean_and_reach,
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
    """A mixed image, then the share of the first image in each token, one map a layer.

    Args:
        pixels: (3, H, W) in [0, 1].
        maps: by the name of the layer, (rows, columns) in [0, 1], such as
            ``{name: seen.map()[0, 0] for name, seen in labels_at(...).items()}``.
        sources: what the first and the second image are called.
        stretched: give each map a range of colours of its own around its mean, since deep or
            untrained models blend labels until they nearly agree; what it spans stands below it.
        title: words above.

    Raises:
        ValueError: there is no map.
    """
    if not maps:
        raise ValueError("layer_map_figure needs the map of at least one layer, got none")
    figure, others = beside_image(pixels, len(maps), title, "mixed image")
    for axes, (name, shares) in zip(others, maps.items(), strict=True):
        shares = shares.detach().cpu()
        mean, reach = mean_and_reach(shares)
        low, high = (mean - reach, mean + reach) if stretched else (0, 1)
        extent = (0, pixels.shape[2], pixels.shape[1], 0)
        axes.imshow(shares.numpy(), cmap=SOURCE_COLOURS, vmin=low, vmax=high, extent=extent)
        below = f"{percent(mean)} ± {100 * reach:.2g}" if stretched else percent(mean)
        frame(axes, name, below, size=TEXT)
    if stretched:
        ticks = {0.0: f"more\n{sources[1]}", 0.5: "mean", 1.0: f"more\n{sources[0]}"}
    else:
        ticks = {0.0: sources[1], 0.5: "half", 1.0: sources[0]}
    legend_bar(figure, SOURCE_COLOURS, (0, 1), ticks)
    return figure
