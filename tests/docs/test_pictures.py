"""The pictures of the documentation: each is made by code, is there, is shown and is described."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from docs.pictures import gallery
from docs.pictures.__main__ import IMAGES, save
from docs.pictures.listed import PICTURES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)(\n\*\S)?")
DEMO = "demo.png"  # by `labeltrace demo`
MOST_BYTES = 2_000_000

SMALL = {
    gallery.VIT: replace(
        gallery.VIT,
        layers=("blocks.*",),
        size=32,
        cells=4,
        options={"img_size": 32, "patch_size": 8, "depth": 2},
    ),
    gallery.SWIN: replace(
        gallery.SWIN,
        layers=("layers.*.blocks.*",),
        size=32,
        cells=4,
        options={
            "img_size": 32,
            "window_size": 4,
            "embed_dim": 12,
            "depths": (1, 1),
            "num_heads": (2, 4),
        },
    ),
    gallery.MIXER: replace(
        gallery.MIXER, layers=("blocks.0", "blocks.1"), size=64, options={"img_size": 64}
    ),
    gallery.CONVNEXT: replace(
        gallery.CONVNEXT,
        layers=("stages.0", "stages.1"),
        size=64,
        cells=4,
        options={"depths": (1, 1, 1, 1), "dims": (4, 4, 8, 8)},
    ),
}


def quick(make: Callable[[], Figure]) -> Callable[[], Figure]:
    """The same picture of a smaller model, where it is of a model."""
    return partial(make.func, SMALL[make.args[0]]) if isinstance(make, partial) else make


def shown() -> set[Path]:
    """The pictures that pages show."""
    return {
        (page.parent / path).resolve()
        for page in PAGES
        for _, path, _ in SHOWN.findall(page.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_can_be_made(name: str, tmp_path: Path) -> None:
    figure = quick(PICTURES[name])()
    assert figure.axes
    path = tmp_path / name
    save(figure, path)
    if path.suffix == ".svg":
        assert b"<svg" in path.read_bytes()
    else:
        with Image.open(path) as picture:
            assert picture.format == "WEBP"


def test_pages_show_the_pictures_that_are_made_and_no_others() -> None:
    kept = {path for path in IMAGES.rglob("*") if path.is_file()}
    assert kept == {IMAGES / name for name in (*PICTURES, DEMO)} == shown()
    assert sum(path.stat().st_size for path in kept) < MOST_BYTES


def test_every_picture_is_described_and_has_a_caption() -> None:
    for page in PAGES:
        for words, path, caption in SHOWN.findall(page.read_text(encoding="utf-8")):
            assert len(words) > 20, f"{page.name}: {path} needs words for those who do not see it"
            assert caption or page.name in ("README.md", "index.md"), f"{page.name}: {path}"


def test_pictures_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("concepts/attention.svg", "gallery/layers-vit.webp"):
        one, other = tmp_path / "one" / name, tmp_path / "other" / name
        for path in (one, other):
            save(quick(PICTURES[name])(), path)
        assert one.read_bytes() == other.read_bytes()
