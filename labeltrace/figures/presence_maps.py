"""Maps of token presence (eq. 2): the tokens that a layer keeps or drops."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from labeltrace.analysis.presence_ratios import Presence
from labeltrace.figures.style import (
    CHANGE_COLORS,
    FONT_SIZE,
    frame,
    image_and_panels,
    legend_bar,
)

LOG2_RANGE = 2  # the colors span a quarter to four times the even share


def presence_figure(
    pixels: Tensor, layers: Mapping[str, Presence], *, image: int = 0, title: str = ""
) -> Figure:
    """An image, and the presence of its tokens in each layer, on a logarithmic scale.

    Args:
        pixels: (3, H, W) in [0, 1].
        layers: the result of `labeltrace.analysis.presence`.
        image: index of the image in the batch.
        title: title of the figure.

    Raises:
        ValueError: there is no layer, or the tokens of no layer form a map.

    Examples:
        >>> import torch
        >>> from labeltrace.analysis import presence
        >>> from labeltrace.figures import presence_figure
        >>> images = torch.rand(1, 3, 16, 16)
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1))
        >>> figure = presence_figure(images[0], presence(model, images))
    """
    maps = {name: found for name, found in layers.items() if found.grid is not None}
    if not maps:
        raise ValueError(
            "presence_figure needs a layer whose tokens form a map; those of "
            f"{', '.join(layers) or 'no layer at all'} do not, so pass other layers"
        )
    figure, others = image_and_panels(pixels, len(maps), title, "image")
    smallest = 2.0**-LOG2_RANGE
    for axes, (name, found) in zip(others, maps.items(), strict=True):
        assert found.grid is not None
        ratio = found.grid.map(found.values / found.even)[image].detach().cpu()
        axes.imshow(
            ratio.clamp_min(smallest).log2().numpy(),
            cmap=CHANGE_COLORS,
            vmin=-LOG2_RANGE,
            vmax=LOG2_RANGE,
            extent=(0, pixels.shape[2], pixels.shape[1], 0),
        )
        frame(axes, name, f"fluctuation {found.fluctuation[image].item():.2g}", size=FONT_SIZE)
    ticks = {-2.0: "¼ or less", -1.0: "½", 0.0: "even", 1.0: "2 ×", 2.0: "4 × or more"}
    legend_bar(figure, CHANGE_COLORS, (-LOG2_RANGE, LOG2_RANGE), ticks, "presence")
    return figure
