"""Maps of token presence (eq. 2): which tokens a layer keeps, and which it drops."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from labeltrace.analysis.presence_ratios import Presence
from labeltrace.figures.style import (
    CHANGE_COLOURS,
    TEXT,
    beside_image,
    frame,
    legend_bar,
)

DOUBLINGS = 2  # the colours span a quarter to four times the even share


def presence_figure(
    pixels: Tensor, layers: Mapping[str, Presence], *, image: int = 0, title: str = ""
) -> Figure:
    """An image, then the presence of its tokens in each layer, on a logarithmic scale.

    Args:
        pixels: (3, H, W) in [0, 1].
        layers: as :func:`labeltrace.analysis.presence` returns them.
        image: which image of the batch to show.
        title: words above.

    Raises:
        ValueError: there is no layer, or the tokens of none form a map.
    """
    maps = {name: seen for name, seen in layers.items() if seen.grid is not None}
    if not maps:
        raise ValueError(
            "presence_figure needs a layer whose tokens form a map; those of "
            f"{', '.join(layers) or 'no layer at all'} do not"
        )
    figure, others = beside_image(pixels, len(maps), title, "image")
    smallest = 2.0**-DOUBLINGS
    for axes, (name, seen) in zip(others, maps.items(), strict=True):
        assert seen.grid is not None
        ratio = seen.grid.map(seen.values / seen.even)[image].detach().cpu()
        axes.imshow(
            ratio.clamp_min(smallest).log2().numpy(),
            cmap=CHANGE_COLOURS,
            vmin=-DOUBLINGS,
            vmax=DOUBLINGS,
            extent=(0, pixels.shape[2], pixels.shape[1], 0),
        )
        frame(axes, name, f"fluctuation {seen.fluctuation[image].item():.2g}", size=TEXT)
    ticks = {-2.0: "¼ or less", -1.0: "½", 0.0: "even", 1.0: "2 ×", 2.0: "4 × or more"}
    legend_bar(figure, CHANGE_COLOURS, (-DOUBLINGS, DOUBLINGS), ticks, "presence")
    return figure
