"""Label maps before and after alignment, model by model: the paper's Figures 5 and 8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from labeltrace.figures.style import SOURCE_COLOURS, frame, mean_and_reach, percent
from labeltrace.photographs import Photograph


@dataclass(frozen=True, eq=False, slots=True)
class LabelMaps:
    """The labels of one model before and after alignment, as shares of the first image.

    Attributes:
        title: the model's name.
        original: (h, w) in [0, 1], the label image at the resolution of the last tokens.
        aligned: (h, w) in [0, 1], the label of each of the last tokens.
        ratio_before: the mixing ratio of the pixels, in [0, 1].
        ratio_after: that of the model's output.
    """

    title: str
    original: Tensor
    aligned: Tensor
    ratio_before: float
    ratio_after: float


def label_map_figure(
    photographs: tuple[Photograph, Photograph],
    mixed: Tensor,
    models: Sequence[LabelMaps],
    note: str = "",
) -> Figure:
    """The two photographs, their mixture, and a column of label maps for each model.

    The rows below the photographs show the original label, the aligned label of the last tokens,
    both from 0 to 100 %, and the aligned label once more with its own range of colours, since
    deep or untrained models blend labels until they nearly agree.

    Args:
        photographs: the two images that were mixed, the first of them red in the maps.
        mixed: (3, H, W) in [0, 1].
        models: at least one model's maps.
        note: a sentence below the title.

    Raises:
        ValueError: there is no model to show.
    """
    if not models:
        raise ValueError("label_map_figure needs the maps of at least one model, got none")
    first, second = (photograph.name for photograph in photographs)
    before = models[0].ratio_before
    figure = Figure(figsize=(2.35 * max(len(models), 3) + 1.6, 10.6), layout="constrained")
    figure.suptitle(f"Labels that follow the tokens\n{note}".strip(), fontsize=12)
    (top,), (bottom,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 3.1))

    shown = (
        (f"first image: {first}", photographs[0].pixels),
        (f"second image: {second}", photographs[1].pixels),
        (f"CutMix: {percent(before)} {first}", mixed),
    )
    for axes, (title, pixels) in zip(top.subplots(1, 3), shown, strict=True):
        axes.imshow(pixels.permute(1, 2, 0).numpy())
        frame(axes, title)

    widths = [1.0] * len(models) + [0.07]
    grid = bottom.add_gridspec(3, len(models) + 1, width_ratios=widths)
    for column, model in enumerate(models):
        original, aligned, stretched = (bottom.add_subplot(grid[row, column]) for row in range(3))
        shares = original.imshow(model.original.numpy(), cmap=SOURCE_COLOURS, vmin=0, vmax=1)
        frame(original, model.title, f"{percent(model.ratio_before)} {first}")
        aligned.imshow(model.aligned.numpy(), cmap=SOURCE_COLOURS, vmin=0, vmax=1)
        frame(aligned, "", f"output: {percent(model.ratio_after)} {first}")
        mean, reach = mean_and_reach(model.aligned)
        around = stretched.imshow(
            model.aligned.numpy(), cmap=SOURCE_COLOURS, vmin=mean - reach, vmax=mean + reach
        )
        frame(stretched, "", f"{percent(mean)} ± {100 * reach:.2g} points")
        if column == 0:
            original.set_ylabel("original label", fontsize=11)
            aligned.set_ylabel("aligned label", fontsize=11)
            stretched.set_ylabel("aligned label,\ncolours stretched", fontsize=11)

    bar = bottom.colorbar(shares, cax=bottom.add_subplot(grid[:2, -1]))
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=[second, "25 %", "50 %", "75 %", first])
    bar = bottom.colorbar(around, cax=bottom.add_subplot(grid[2, -1]))
    bar.set_ticks(
        [mean - reach, mean, mean + reach], labels=[f"more\n{second}", "mean", f"more\n{first}"]
    )
    return figure
