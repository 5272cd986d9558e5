"""Figures of analyses: they show what they are given, say what it is, and no words touch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from torch import Tensor

from labeltrace import LabelError
from labeltrace.analysis import Presence, Provenance, RatioCurves
from labeltrace.figures import (
    layer_map_figure,
    mixed_image_figure,
    presence_figure,
    provenance_figure,
    ratio_figure,
)
from labeltrace.flow import LabelField
from labeltrace.inspection.places import Place
from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.layout import input_layout

generator = torch.Generator().manual_seed(19)
PIXELS = torch.rand(3, 21, 33, generator=generator)
GRID = TokenGrid(torch.arange(1, 36).reshape(5, 7))  # behind a class token
PLACE = Place("add_1", "blocks.1", input_layout((2, 3, 5, 7), 1), LabelField("add_1"))
SOURCES = ("temple", "dahlia")


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator)


MAPS = {f"layers.{layer}.blocks.0": rand(5, 7) for layer in range(6)}
PRESENCES = {
    f"blocks.{layer}.attn": Presence(PLACE, 3 * rand(2, 36), 1.0, GRID) for layer in range(4)
}
SHARES = {f"blocks.{n}": Provenance(PLACE, rand(2, 36, 3, 11), GRID) for n in range(3)}
CURVES = RatioCurves(
    tuple(f"blocks.{n}" for n in range(12)), rand(2), rand(2), rand(12, 2), rand(12, 2)
)
MIXTURES = {
    "CutMix": (PIXELS, rand(1, 21, 33).round().expand(2, -1, -1)),
    "MixUp": (PIXELS, torch.tensor([0.25, 0.75])[:, None, None]),
    "block-wise": (PIXELS, rand(2, 21, 33)),
}
FIGURES: dict[str, Callable[[], Figure]] = {
    "layers": lambda: layer_map_figure(PIXELS, MAPS, SOURCES, title="Swin-T"),
    "stretched layers": lambda: layer_map_figure(PIXELS, MAPS, SOURCES, stretched=True),
    "one layer": lambda: layer_map_figure(PIXELS, dict([*MAPS.items()][:1]), SOURCES),
    "mixtures": lambda: mixed_image_figure(MIXTURES, SOURCES),
    "presence": lambda: presence_figure(PIXELS, PRESENCES, image=1, title="Token presence"),
    "provenance": lambda: provenance_figure(PIXELS, SHARES, (3, 2), image=1, title="Made of"),
    "ratios": lambda: ratio_figure(CURVES, image=1, first="temple"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_words_overlap_or_leave_the_figure(name: str, tmp_path: Path) -> None:
    figure = FIGURES[name]()
    FigureCanvasAgg(figure).draw()
    found = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in found]
    assert len(boxes) > 4
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (text, box), (other_text, other) in combinations(boxes, 2):
        assert not box.overlaps(other), (text, other_text)
    for suffix, start in (("svg", b"<?xml"), ("pdf", b"%PDF")):
        figure.savefig(tmp_path / f"figure.{suffix}")
        assert (tmp_path / f"figure.{suffix}").read_bytes().startswith(start)


def shown(figure: Figure) -> list[list[numpy.ndarray]]:
    """The pictures of each panel."""
    return [
        [numpy.asarray(picture.get_array()) for picture in axes.images]
        for axes in figure.axes
        if axes.images
    ]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def test_layer_maps() -> None:
    pixels, *maps = shown(FIGURES["layers"]())
    assert (pixels[0] == PIXELS.permute(1, 2, 0).numpy()).all()
    for (found,), given in zip(maps, MAPS.values(), strict=True):
        assert (found == given.numpy()).all()
    axes = [a for a in FIGURES["stretched layers"]().axes if a.images][1:]
    for panel, (name, given) in zip(axes, MAPS.items(), strict=True):
        low, high = panel.images[0].get_clim()
        assert (low + high) / 2 == pytest.approx(given.mean().item())
        assert panel.get_title() == name
        assert panel.get_xlabel().startswith(f"{100 * given.mean().item():.1f} %")


def test_mixtures_with_one_label_everywhere_fill_their_map() -> None:
    figure = FIGURES["mixtures"]()
    panels = shown(figure)
    assert (panels[4][0] == 0.25).all() and panels[4][0].shape == (21, 33)
    assert "25.0 % temple" in words(figure)
    assert "MixUp" in words(figure)


def test_presence_is_shown_as_powers_of_two_of_the_even_share() -> None:
    figure = FIGURES["presence"]()
    for (found,), seen in zip(shown(figure)[1:], PRESENCES.values(), strict=True):
        ratio = seen.values[1, 1:].reshape(5, 7).clamp_min(0.25).log2()
        torch.testing.assert_close(torch.tensor(found), ratio)
        assert f"fluctuation {seen.fluctuation[1].item():.2g}" in words(figure)
    hidden = {"fc1": Presence(PLACE, rand(2, 36), 1.0, None)}
    with pytest.raises(ValueError, match="those of fc1 do not"):
        presence_figure(PIXELS, hidden)


def test_provenance_lies_over_the_image_and_frames_the_token() -> None:
    figure = FIGURES["provenance"]()
    axes = [axes for axes in figure.axes if axes.images][1:]
    for panel, seen in zip(axes, SHARES.values(), strict=True):
        gray, heat = (torch.tensor(numpy.asarray(p.get_array())) for p in panel.images)
        share = seen.shares[1, 1 + 3 * 7 + 2]
        torch.testing.assert_close(gray, PIXELS.mean(0))
        torch.testing.assert_close(heat, share / share.max())
        assert panel.get_xlabel() == f"up to {share.max().item() * 33:.3g} × even"
        (mark,) = (patch for patch in panel.patches if isinstance(patch, Rectangle))
        assert mark.get_bbox().bounds == pytest.approx((2 * 33 / 7, 3 * 21 / 5, 33 / 7, 21 / 5))
    with pytest.raises(LabelError, match="no token \\(5, 0\\)"):
        provenance_figure(PIXELS, SHARES, (5, 0))
    with pytest.raises(ValueError, match="has no token 36; choose one below 36"):
        provenance_figure(PIXELS, SHARES, 36)


def test_each_place_may_have_a_token_of_its_own() -> None:
    tokens = {name: (row, 2) for row, name in enumerate(SHARES)}
    figure = provenance_figure(PIXELS, SHARES, tokens)
    panels = [axes for axes in figure.axes if axes.images][1:]
    marks = [patch for panel in panels for patch in panel.patches if isinstance(patch, Rectangle)]
    assert [mark.get_y() for mark in marks] == pytest.approx(
        [row * 21 / 5 for row in range(len(SHARES))]
    )
    last = list(SHARES)[-1]
    del tokens[last]
    with pytest.raises(
        ValueError, match=f"provenance_figure needs a token for {last}; add it to token"
    ):
        provenance_figure(PIXELS, SHARES, tokens)


def test_ratio_lines_differ_in_style_and_leave_out_what_is_not_known() -> None:
    (axes,) = FIGURES["ratios"]().axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["CutMix", "TransMix", "alignment", "similarity"]
    assert lines["CutMix"].get_ydata() == pytest.approx([CURVES.cutmix[1].item()] * 12)
    assert lines["alignment"].get_ydata() == pytest.approx(CURVES.alignment[:, 1].tolist())
    assert lines["similarity"].get_ydata() == pytest.approx(CURVES.similarity[:, 1].tolist())
    looks = {(line.get_linestyle(), line.get_marker()) for line in lines.values()}
    assert len(looks) == 4  # distinguishable without color
    unknown = RatioCurves(CURVES.layers, CURVES.cutmix, None, CURVES.alignment, CURVES.similarity)
    (axes,) = ratio_figure(unknown).axes
    assert [line.get_label() for line in axes.lines] == ["CutMix", "alignment", "similarity"]


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (
            lambda: layer_map_figure(PIXELS, {}, SOURCES),
            "layer_map_figure needs the map of at least one layer",
        ),
        (
            lambda: mixed_image_figure({}, SOURCES),
            "mixed_image_figure needs at least one mixture, got none",
        ),
        (lambda: presence_figure(PIXELS, {}), "presence_figure needs a layer whose tokens form"),
        (
            lambda: provenance_figure(PIXELS, {}, 0),
            "provenance_figure needs the provenance of at least one place",
        ),
    ],
)
def test_nothing_to_show_is_an_error(draw: Callable[[], Figure], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw()


def test_heat_is_lighter_the_more_it_is() -> None:
    """Readable in gray, hence for any color vision."""
    from labeltrace.figures.style import HEAT_COLORS

    steps = matplotlib.colormaps[HEAT_COLORS](numpy.linspace(0, 1, 64))[:, :3]
    gray = steps @ [0.2126, 0.7152, 0.0722]
    assert (numpy.diff(gray) > 0).all()
