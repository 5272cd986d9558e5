"""Figures of mixed images, labels, presence, mixing ratios and provenance.

Figures are made without pyplot: there is no window and no global state, and they work on a machine
without a screen. Each function returns the Figure; `figure.savefig("name.pdf")` saves it, also as
SVG or PNG.
"""

from labeltrace.extras import extra

with extra("figures"):
    from labeltrace.figures.label_maps import LabelMaps, label_map_figure
    from labeltrace.figures.layer_maps import layer_map_figure
    from labeltrace.figures.mixed_images import mixed_image_figure
    from labeltrace.figures.overlays import provenance_figure
    from labeltrace.figures.presence_maps import presence_figure
    from labeltrace.figures.ratio_lines import ratio_figure
    from labeltrace.figures.style import SOURCE_COLORS as COLORS

__all__ = [
    "COLORS",
    "LabelMaps",
    "label_map_figure",
    "layer_map_figure",
    "mixed_image_figure",
    "presence_figure",
    "provenance_figure",
    "ratio_figure",
]
