"""Provenance over the image: where the content of a token came from."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from labeltrace.analysis.input_provenance import Provenance
from labeltrace.figures.style import (
    HEAT_COLOURS,
    TEXT,
    beside_image,
    frame,
    legend_bar,
)

LEAST_OPACITY, MOST_OPACITY = 0.3, 0.85  # of cells without a share, and of the largest
MARK = "#56B4E9"  # sky blue of Okabe and Ito's palette, which the heat map lacks

Token = tuple[int, int] | int


def provenance_figure(
    pixels: Tensor,
    provenances: Mapping[str, Provenance],
    token: Token | Mapping[str, Token],
    *,
    image: int = 0,
    title: str = "",
) -> Figure:
    """A heat map of the cells that a token is made of, over the image in grey, one panel a place.

    The brightest colour is the largest share of each panel, which stands below it as a multiple of
    the even share.

    Args:
        pixels: (3, H, W) in [0, 1].
        provenances: as :func:`labeltrace.analysis.provenance` returns them.
        token: row and column of the token in each place's map; a number, in the order of
            :attr:`Provenance.shares`, where it has none: 0 for a class token or pooled features.
            A row and column outlines the token.  Where the maps differ in size, as in models that
            merge tokens, a token for each place, by the same names.
        image: which image of the batch to show.
        title: words above.

    Raises:
        LabelError: a place has no such row and column.
        ValueError: there is no place, it has no token of that number, or none is given for it.
    """
    if not provenances:
        raise ValueError("provenance_figure needs the provenance of at least one place, got none")
    figure, others = beside_image(pixels, len(provenances), title, "image")
    for axes, (name, found) in zip(others, provenances.items(), strict=True):
        chosen = token.get(name) if isinstance(token, Mapping) else token
        if chosen is None:
            raise ValueError(f"provenance_figure needs a token for {name}, and was given none")
        share = _shares(name, found, chosen)[image].detach().cpu()
        _show(axes, pixels, share)
        frame(axes, name, f"up to {share.max().item() * share.numel():.3g} × even", size=TEXT)
        if not isinstance(chosen, int):
            _outline(axes, found, chosen, pixels)
    ticks = {0.0: "none", 1.0: "largest"}
    legend_bar(figure, HEAT_COLOURS, (0, 1), ticks, "share of the token")
    return figure


def _shares(name: str, found: Provenance, token: Token) -> Tensor:
    if not isinstance(token, int):
        return found.token(*token)
    if not 0 <= token < found.shares.shape[1]:
        raise ValueError(f"{name} has {found.shares.shape[1]} tokens, and no token {token}")
    return found.shares[:, token]


def _show(axes: Axes, pixels: Tensor, shares: Tensor) -> None:
    """A heat map (h, w) over an image (3, H, W) in grey."""
    extent = (0, pixels.shape[2], pixels.shape[1], 0)
    axes.imshow(pixels.mean(0).detach().cpu().numpy(), cmap="gray", vmin=0, vmax=1, extent=extent)
    heat = (shares / shares.max()).numpy()
    opacity = LEAST_OPACITY + (MOST_OPACITY - LEAST_OPACITY) * heat
    axes.imshow(heat, cmap=HEAT_COLOURS, vmin=0, vmax=1, alpha=opacity, extent=extent)


def _outline(axes: Axes, found: Provenance, token: tuple[int, int], pixels: Tensor) -> None:
    assert found.grid is not None
    rows, columns = found.grid.shape
    height, width = pixels.shape[1] / rows, pixels.shape[2] / columns
    corner = (token[1] * width, token[0] * height)
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=MARK, linewidth=1.0))
