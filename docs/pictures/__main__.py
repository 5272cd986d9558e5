"""Make the pictures of the documentation: ``python -m docs.pictures [NAME ...]``.

They are computed by the library on random weights from fixed seeds, and kept in docs/images/.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from docs.pictures import concepts, gallery

IMAGES = Path(__file__).parents[1] / "images"

PICTURES: Mapping[str, Callable[[], Figure]] = {
    "concepts/tokens.webp": concepts.tokens,
    "concepts/operations.svg": concepts.operations,
    "concepts/attention.svg": concepts.attention,
    "concepts/convolution.svg": concepts.convolution,
    "concepts/residual.svg": concepts.residual,
    "concepts/windows.svg": concepts.windows,
    "concepts/merging.svg": concepts.merging,
    "concepts/maxima.svg": concepts.maxima,
    "gallery/mixed-images.webp": partial(gallery.mixed_images, gallery.VIT),
    "gallery/layers-vit.webp": partial(gallery.layers, gallery.VIT),
    "gallery/layers-swin.webp": partial(gallery.layers, gallery.SWIN),
    "gallery/layers-mixer.webp": partial(gallery.layers, gallery.MIXER),
    "gallery/layers-convnext.webp": partial(gallery.layers, gallery.CONVNEXT),
    "gallery/presence-vit.webp": partial(gallery.presence, gallery.VIT),
    "gallery/ratios-vit.svg": partial(gallery.ratios, gallery.VIT),
    "gallery/provenance-vit.webp": partial(gallery.provenance, gallery.VIT),
    "gallery/provenance-swin.webp": partial(gallery.provenance, gallery.SWIN),
    "gallery/provenance-convnext.webp": partial(gallery.provenance, gallery.CONVNEXT),
}
"""How each is made, by its path in docs/images/."""

DPI = 160  # twice as many pixels as a page shows, nearly: sharp on dense screens
QUALITY = 80


def save(figure: Figure, path: Path) -> None:
    """Write a picture, the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".svg":
        with matplotlib.rc_context({"svg.hashsalt": path.stem}):
            figure.savefig(path, metadata={"Date": None})
    else:
        figure.savefig(path, dpi=DPI, pil_kwargs={"quality": QUALITY, "method": 6})


def main(names: list[str]) -> None:
    """Make those pictures, or all."""
    for name in names or PICTURES:
        if name not in PICTURES:
            sys.exit(f"there is no picture {name}; there are {', '.join(PICTURES)}")
        save(PICTURES[name](), IMAGES / name)
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
