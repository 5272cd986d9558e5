"""Label maps before and after alignment for several models: Figures 5 and 8 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from labeltrace.figures.style import SOURCE_COLORS, frame, mean_and_deviation, percent
from labeltrace.photographs import Photograph


@dataclass(frozen=True, eq=False, slots=True)
class LabelMaps:
    """The labels of one model before and after alignment, as shares of the first image.

    Attributes:
        title: the model's name.
        original: (h, w) in [0, 1], the label image at the resolution of the last tokens.
        aligned: (h, w) in [0, 1], the label of each of the last tokens.
        ratio_before: the mixing ratio of the pixels, in [0, 1].
        ratio_after: the mixing ratio in the label of the model's output, in [0, 1].
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
    """Two photographs, their mixture, and a column of label maps for each model.

    The rows below the photographs show the original label and the aligned label of the last tokens,
    both from 0 to 100 %, and the aligned label again with its own range of colors, because deep or
    untrained models blend labels until they are nearly equal.

    Args:
        photographs: the two images that were mixed; the first is red in the maps.
        mixed: (3, H, W) in [0, 1].
        models: the maps of at least one model.
        note: a sentence below the title.

    Raises:
        ValueError: there is no model to show.

    Examples:
        >>> import torch
        >>> from labeltrace.figures import LabelMaps, label_map_figure
        >>> from labeltrace.photographs import Photograph
        >>> pixels = torch.rand(3, 32, 32)
        >>> first, second = Photograph("cat", pixels), Photograph("dog", pixels.flip(2))
        >>> maps = LabelMaps("model", torch.rand(4, 4), torch.rand(4, 4), 0.5, 0.6)
        >>> figure = label_map_figure((first, second), pixels, [maps])
    """
    if not models:
        raise ValueError(
            "label_map_figure needs the maps of at least one model, got none; make them with "
            "labeltrace.demo.label_maps"
        )
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
        shares = original.imshow(model.original.numpy(), cmap=SOURCE_COLORS, vmin=0, vmax=1)
        frame(original, model.title, f"{percent(model.ratio_before)} {first}")
        aligned.imshow(model.aligned.numpy(), cmap=SOURCE_COLORS, vmin=0, vmax=1)
        frame(aligned, "", f"output: {percent(model.ratio_after)} {first}")
        mean, deviation = mean_and_deviation(model.aligned)
        around = stretched.imshow(
            model.aligned.numpy(), cmap=SOURCE_COLORS, vmin=mean - deviation, vmax=mean + deviation
        )
        frame(stretched, "", f"{percent(mean)} ± {100 * deviation:.2g} points")
        if column == 0:
            original.set_ylabel("original label", fontsize=11)
            aligned.set_ylabel("aligned label", fontsize=11)
            stretched.set_ylabel("aligned label,\ncolors stretched", fontsize=11)

    bar = bottom.colorbar(shares, cax=bottom.add_subplot(grid[:2, -1]))
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=[second, "25 %", "50 %", "75 %", first])
    bar = bottom.colorbar(around, cax=bottom.add_subplot(grid[2, -1]))
    bar.set_ticks(
        [mean - deviation, mean, mean + deviation],
        labels=[f"more\n{second}", "mean", f"more\n{first}"],
    )
    return figure
