"""Every picture of the documentation: its path in docs/images/, and the function that draws it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from matplotlib.figure import Figure

from docs.pictures import concepts, gallery

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
