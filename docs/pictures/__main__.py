"""Make the pictures of the documentation: `python -m docs.pictures [NAME ...]`.

They are computed by the library from random weights with fixed seeds, and saved in docs/images/.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from docs.pictures.listed import PICTURES

IMAGES = Path(__file__).parents[1] / "images"
DPI = 160  # about twice the pixels of a page, for high-resolution screens
QUALITY = 80


def save(figure: Figure, path: Path) -> None:
    """Write a picture reproducibly: always the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".svg":
        with matplotlib.rc_context({"svg.hashsalt": path.stem}):
            figure.savefig(path, metadata={"Date": None})
    else:
        figure.savefig(path, dpi=DPI, pil_kwargs={"quality": QUALITY, "method": 6})


def main(names: list[str]) -> None:
    """Make the named pictures, or all."""
    for name in names or PICTURES:
        if name not in PICTURES:
            sys.exit(f"there is no picture {name}; there are {', '.join(PICTURES)}")
        save(PICTURES[name](), IMAGES / name)
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
