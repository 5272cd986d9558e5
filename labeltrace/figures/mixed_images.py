"""Mixed images and the source of each of their pixels: Figure 7 of the paper."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from labeltrace.figures.style import (
    FONT_SIZE,
    SOURCE_COLORS,
    frame,
    legend_bar,
    panel_figure,
    percent,
    show_pixels,
)


def mixed_image_figure(
    mixtures: Mapping[str, tuple[Tensor, Tensor]], sources: tuple[str, str]
) -> Figure:
    """Mixed images in a row, each above the map of its labels.

    Args:
        mixtures: by the name of the strategy, the mixed pixels (3, H, W) in [0, 1] and their label
            image (2, H, W) or (2, 1, 1).
        sources: names of the first and the second image.

    Raises:
        ValueError: there is no mixture.

    Examples:
        >>> import torch
        >>> from labeltrace import CutMix, MixUp
        >>> from labeltrace.figures import mixed_image_figure
        >>> images, targets = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
        >>> batches = {"CutMix": CutMix()(images, targets), "MixUp": MixUp()(images, targets)}
        >>> mixtures = {name: (b.images[0], b.labels[0]) for name, b in batches.items()}
        >>> figure = mixed_image_figure(mixtures, ("cat", "dog"))
    """
    if not mixtures:
        raise ValueError(
            "mixed_image_figure needs at least one mixture, got none; pass {name: (pixels, labels)}"
        )
    figure = panel_figure(max(len(mixtures), 2), "", height=1.9)
    upper, lower = figure.subplots(2, len(mixtures), squeeze=False)
    for above, below, (name, (pixels, labels)) in zip(upper, lower, mixtures.items(), strict=True):
        show_pixels(above, pixels)
        frame(above, name, size=FONT_SIZE)
        share = labels[0].expand(pixels.shape[1:]).detach().cpu()
        below.imshow(share.numpy(), cmap=SOURCE_COLORS, vmin=0, vmax=1)
        frame(below, "", f"{percent(share.mean().item())} {sources[0]}", size=FONT_SIZE)
    legend_bar(figure, SOURCE_COLORS, (0, 1), {0: sources[1], 0.5: "half", 1: sources[0]})
    return figure
