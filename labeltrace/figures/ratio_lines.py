"""Mixing ratios layer by layer: Figure 4."""

from __future__ import annotations

from matplotlib.figure import Figure

from labeltrace.analysis.ratio_curves import RatioCurves
from labeltrace.figures.style import COLUMN_WIDTH, LINE_COLOURS, TEXT


def ratio_figure(curves: RatioCurves, *, image: int = 0, first: str = "first image") -> Figure:
    """The share of the first image after each layer, by four methods.

    Args:
        curves: as :func:`labeltrace.analysis.ratio_curves` returns them.
        image: which image of the batch to show.
        first: what the first image is called.
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
    for (name, style), colour in zip(styles.items(), LINE_COLOURS, strict=True):
        if name in drawn:
            axes.plot(layers, drawn[name], style, color=colour, label=name, markersize=3.5, lw=1.4)
    axes.set_xlabel("layer", fontsize=TEXT)
    axes.set_ylabel(f"share of {first}", fontsize=TEXT)
    axes.set_xticks(list(layers)[:: 1 + len(layers) // 13])
    axes.tick_params(labelsize=TEXT - 1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, fontsize=TEXT, frameon=False)
    return figure
