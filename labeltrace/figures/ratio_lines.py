"""Mixing ratios layer by layer: Figure 4 of the paper."""

from __future__ import annotations

from matplotlib.figure import Figure

from labeltrace.analysis.ratio_curves import RatioCurves
from labeltrace.figures.style import COLUMN_WIDTH, FONT_SIZE, LINE_COLORS


def ratio_figure(curves: RatioCurves, *, image: int = 0, first: str = "first image") -> Figure:
    """The share of the first image after each layer, by four methods.

    Args:
        curves: the result of `labeltrace.analysis.ratio_curves`.
        image: index of the image in the batch.
        first: name of the first image.

    Examples:
        >>> import torch
        >>> from labeltrace.analysis import RatioCurves
        >>> from labeltrace.figures import ratio_figure
        >>> ratios, shares = torch.rand(1), torch.rand(2, 1)
        >>> figure = ratio_figure(RatioCurves(("0", "1"), ratios, ratios, shares, shares))
    """
    figure = Figure(figsize=(COLUMN_WIDTH, 2.7), layout="constrained")
    axes = figure.subplots()
    layers = range(1, len(curves.layers) + 1)
    constant = {"CutMix": curves.cutmix, "TransMix": curves.transmix}
    drawn = {
        name: [shares[image].item()] * len(layers)
        for name, shares in constant.items()
        if shares is not None
    }
    drawn["alignment"] = curves.alignment[:, image].tolist()
    drawn["similarity"] = curves.similarity[:, image].tolist()
    styles = {"CutMix": "--", "TransMix": ":", "alignment": "o-", "similarity": "s-"}
    for (name, style), color in zip(styles.items(), LINE_COLORS, strict=True):
        if name in drawn:
            axes.plot(layers, drawn[name], style, color=color, label=name, markersize=3.5, lw=1.4)
    axes.set_xlabel("layer", fontsize=FONT_SIZE)
    axes.set_ylabel(f"share of {first}", fontsize=FONT_SIZE)
    axes.set_xticks(list(layers)[:: 1 + len(layers) // 13])
    axes.tick_params(labelsize=FONT_SIZE - 1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, fontsize=FONT_SIZE, frameon=False)
    return figure
