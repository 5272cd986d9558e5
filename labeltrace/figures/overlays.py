"""Provenance of a token, drawn over the image."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from labeltrace.analysis.input_provenance import Provenance
from labeltrace.figures.style import (
    FONT_SIZE,
    HEAT_COLORS,
    frame,
    image_and_panels,
    legend_bar,
)

MIN_OPACITY, MAX_OPACITY = 0.3, 0.85  # of cells without a share, and of the largest share
OUTLINE_COLOR = "#56B4E9"  # sky blue of Okabe and Ito's palette, which the heat map lacks

Token = tuple[int, int] | int


def provenance_figure(
    pixels: Tensor,
    provenances: Mapping[str, Provenance],
    token: Token | Mapping[str, Token],
    *,
    image: int = 0,
    title: str = "",
) -> Figure:
    """Heat maps of the input cells in a token, over the image in gray, one panel for each place.

    The brightest color of a panel is its largest share, which is written below the panel as a
    multiple of the even share.

    Args:
        pixels: (3, H, W) in [0, 1].
        provenances: the result of `labeltrace.analysis.provenance`.
        token: row and column of the token in the map of each place; the token is outlined. For a
            token without a position, its index in `Provenance.shares`: 0 for a class token or
            pooled features. If the maps differ in size, as in models that merge tokens, a mapping
            from the names in `provenances` to such tokens.
        image: index of the image in the batch.
        title: title of the figure.

    Raises:
        LabelError: a place has no such row and column.
        ValueError: there is no place, it has no token of that index, or no token is given for it.

    Examples:
        >>> import torch
        >>> from labeltrace import provenance
        >>> from labeltrace.figures import provenance_figure
        >>> images = torch.rand(1, 3, 16, 16)
        >>> found = provenance(torch.nn.Conv2d(3, 8, 4, stride=4), images, grid=(4, 4))
        >>> figure = provenance_figure(images[0], found, token=(1, 2))
    """
    if not provenances:
        raise ValueError(
            "provenance_figure needs the provenance of at least one place, got none; get it from "
            "labeltrace.provenance"
        )
    figure, others = image_and_panels(pixels, len(provenances), title, "image")
    for axes, (name, found) in zip(others, provenances.items(), strict=True):
        chosen = token.get(name) if isinstance(token, Mapping) else token
        if chosen is None:
            raise ValueError(f"provenance_figure needs a token for {name}; add it to token")
        share = _token_shares(name, found, chosen)[image].detach().cpu()
        _draw_heat_map(axes, pixels, share)
        frame(axes, name, f"up to {share.max().item() * share.numel():.3g} × even", size=FONT_SIZE)
        if not isinstance(chosen, int):
            _outline_token(axes, found, chosen, pixels)
    ticks = {0.0: "none", 1.0: "largest"}
    legend_bar(figure, HEAT_COLORS, (0, 1), ticks, "share of the token")
    return figure


def _token_shares(name: str, found: Provenance, token: Token) -> Tensor:
    if not isinstance(token, int):
        return found.token(*token)
    if not 0 <= token < found.shares.shape[1]:
        raise ValueError(
            f"{name} has no token {token}; choose one below {found.shares.shape[1]}, the number of "
            f"its tokens"
        )
    return found.shares[:, token]


def _draw_heat_map(axes: Axes, pixels: Tensor, shares: Tensor) -> None:
    """Draw a heat map (h, w) over an image (3, H, W) in gray."""
    extent = (0, pixels.shape[2], pixels.shape[1], 0)
    axes.imshow(pixels.mean(0).detach().cpu().numpy(), cmap="gray", vmin=0, vmax=1, extent=extent)
    heat = (shares / shares.max()).numpy()
    opacity = MIN_OPACITY + (MAX_OPACITY - MIN_OPACITY) * heat
    axes.imshow(heat, cmap=HEAT_COLORS, vmin=0, vmax=1, alpha=opacity, extent=extent)


def _outline_token(axes: Axes, found: Provenance, token: tuple[int, int], pixels: Tensor) -> None:
    assert found.grid is not None
    rows, columns = found.grid.shape
    height, width = pixels.shape[1] / rows, pixels.shape[2] / columns
    corner = (token[1] * width, token[0] * height)
    axes.add_patch(
        Rectangle(corner, width, height, fill=False, edgecolor=OUTLINE_COLOR, linewidth=1.0)
    )
