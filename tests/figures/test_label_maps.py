"""The figure of label maps: what it shows is what it was given, and no words touch."""

from __future__ import annotations

from itertools import combinations

import matplotlib
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from labeltrace.figures import COLORS, LabelMaps, label_map_figure
from labeltrace.photographs import Photograph

TITLES = ("DeiT-S", "Swin-T", "Mixer-B", "ConvNeXt-T", "another one")
generator = torch.Generator().manual_seed(3)


def random_maps(title: str, rows: int, columns: int) -> LabelMaps:
    shares = torch.rand(2, rows, columns, generator=generator)
    return LabelMaps(title, shares[0], shares[1] / 7 + 0.3, 0.5772, 0.3141)


def figure_of(models: int) -> tuple[Figure, list[LabelMaps], list[torch.Tensor]]:
    pixels = torch.rand(3, 3, 11, 11, generator=generator)
    first, second = Photograph("temple", pixels[0]), Photograph("dahlia", pixels[1])
    maps = [random_maps(title, 5, 7 + number) for number, title in enumerate(TITLES[:models])]
    figure = label_map_figure((first, second), pixels[2], maps, note="Random weights.")
    FigureCanvasAgg(figure).draw()
    return figure, maps, list(pixels)


def pictures(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.images]


def test_shows_the_pixels_and_maps_that_it_was_given() -> None:
    figure, maps, pixels = figure_of(4)
    shown = pictures(figure)
    assert len(shown) == 3 + 3 * len(maps)
    assert len(figure.axes) == len(shown) + 2  # color bars
    for axes, expected in zip(shown[:3], pixels, strict=True):
        assert (axes.images[0].get_array() == expected.permute(1, 2, 0).numpy()).all()
    for number, model in enumerate(maps):
        original, aligned, stretched = shown[3 + 3 * number : 6 + 3 * number]
        assert (original.images[0].get_array() == model.original.numpy()).all()
        assert original.images[0].get_clim() == aligned.images[0].get_clim() == (0, 1)
        for axes in (aligned, stretched):
            assert (axes.images[0].get_array() == model.aligned.numpy()).all()
        low, high = stretched.images[0].get_clim()
        assert (low + high) / 2 == pytest.approx(model.aligned.mean().item())
        assert low == pytest.approx(model.aligned.min().item()) or high == pytest.approx(
            model.aligned.max().item()
        )
        assert original.get_title() == model.title
        assert original.get_xlabel() == "57.7 % temple"
        assert aligned.get_xlabel() == "output: 31.4 % temple"


def test_first_image_is_red_and_second_blue() -> None:
    figure, _, _ = figure_of(1)
    bar = figure.axes[-2]
    ticks = [(label.get_position()[1], label.get_text()) for label in bar.get_yticklabels()]
    assert ticks[0] == (0, "dahlia")
    assert ticks[-1] == (1, "temple")
    for share, strongest in ((1.0, 0), (0.0, 2)):
        color = matplotlib.colormaps[COLORS](share)[:3]
        assert max(range(3), key=color.__getitem__) == strongest
    assert all(axes.images[0].get_cmap().name == COLORS for axes in pictures(figure)[3:])


@pytest.mark.parametrize("models", [1, 2, 4, 5])
def test_no_words_overlap_or_leave_the_figure(models: int) -> None:
    figure, _, _ = figure_of(models)
    texts = [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()
    ]
    assert len(texts) > 4 + 3 * models
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (text, box), (other_text, other) in combinations(boxes, 2):
        assert not box.overlaps(other), (text, other_text)
    for text, box in boxes:
        for axes in pictures(figure):
            assert not box.overlaps(axes.get_window_extent()), text


def test_equal_labels_are_not_stretched_to_full_color() -> None:
    pixels = torch.zeros(3, 2, 2)
    flat = LabelMaps("flat", torch.ones(2, 2), torch.full((2, 2), 0.25), 0.5, 0.25)
    photographs = (Photograph("a", pixels), Photograph("b", pixels))
    stretched = pictures(label_map_figure(photographs, pixels, [flat]))[-1].images[0]
    low, high = stretched.get_clim()
    assert low < 0.25 < high


def test_needs_a_model() -> None:
    pixels = torch.zeros(3, 2, 2)
    photographs = (Photograph("a", pixels), Photograph("b", pixels))
    with pytest.raises(ValueError, match="label_map_figure needs the maps of at least one model"):
        label_map_figure(photographs, pixels, [])
