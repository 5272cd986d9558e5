"""Pictures of complete models, each made by a function of `labeltrace.figures`.

The models are timm's with random weights: nothing is downloaded, and the pictures show the effect
of the architecture. Trained weights make attention, and so the maps, less even.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import timm
import torch
from matplotlib.figure import Figure
from torch import Tensor

import labeltrace
from labeltrace import analysis, figures
from labeltrace.photographs import normalize, sample_photographs

HALF = (0.5, 0.5, 0.5)
NAMES = ("china", "flower")
BOX = (34, 76, 146, 190)  # edges of the pasted box: top, left, bottom, right; of 224 pixels


@dataclass(frozen=True, eq=False, slots=True)
class Subject:
    """A model to draw.

    Attributes:
        title: title of the picture.
        name: timm's name.
        layers: the places to show.
        size: height and width of the images in pixels.
        cells: number of rows and of columns of cells for provenance.
        sharpness: factor for queries and keys; random queries and keys are nearly equal, which
            makes attention nearly even.
        options: options for timm's `create_model`.
    """

    title: str
    name: str
    layers: tuple[str, ...]
    size: int = 224
    cells: int = 14
    sharpness: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)


VIT = Subject(
    "ViT-Ti",
    "vit_tiny_patch16_224",
    ("patch_embed", *(f"blocks.{number}" for number in (0, 1, 3, 5, 8, 11))),
    sharpness=5.0,
)
SWIN = Subject(
    "Swin-T",
    "swin_tiny_patch4_window7_224",
    (
        "layers.0.blocks.0",
        "layers.0.blocks.1",
        "layers.1.blocks.0",
        "layers.1.blocks.1",
        "layers.2.blocks.1",
        "layers.2.blocks.5",
        "layers.3.blocks.1",
    ),
)
MIXER = Subject(
    "Mixer-S", "mixer_s16_224", ("stem", *(f"blocks.{number}" for number in (0, 1, 2, 3, 5, 7)))
)
CONVNEXT = Subject(
    "ConvNeXt-A",
    "convnext_atto",
    (
        "stages.0.blocks.0",
        "stages.0.blocks.1",
        "stages.1.blocks.1",
        "stages.2.blocks.0",
        "stages.2.blocks.2",
        "stages.2.blocks.5",
        "stages.3.blocks.1",
    ),
)


def mixed_images(subject: Subject) -> Figure:
    """Four ways to mix two photographs, with their labels (Figure 7)."""
    pixels = torch.stack([photograph.pixels for photograph in sample_photographs(subject.size)])
    mixers = {
        "CutMix": labeltrace.CutMix(partner="flip"),
        "MixUp": labeltrace.MixUp(alpha=8.0, partner="flip"),
        "PatchMix": labeltrace.PatchMix(ratio=0.4, partner="flip"),
        "BlockMix": labeltrace.BlockMix(ratio=0.4, partner="flip"),
    }
    mixtures = {}
    for name, mixer in mixers.items():
        batch = mixer(pixels, torch.tensor([0, 1]), generator=torch.Generator().manual_seed(2))
        mixtures[name] = (batch.images[0], batch.labels[0])
    return figures.mixed_image_figure(mixtures, NAMES)


def layers(subject: Subject) -> Figure:
    """The labels of a photograph mixed by CutMix, layer by layer (Figures 5 and 8)."""
    mixed, labels, _ = mixture(subject)
    found = labeltrace.labels_at(observer(subject), batch(mixed), labels, subject.layers)
    maps = {name: at.map()[0, 0] for name, at in found.items()}
    return figures.layer_map_figure(mixed, maps, NAMES, stretched=True, title=subject.title)


def presence(subject: Subject) -> Figure:
    """The presence of each token in the output of each spatial mixing step (eq. 2)."""
    _, _, (photograph, _) = mixture(subject)
    found = analysis.presence(observer(subject), batch(photograph), modules=subject.layers)
    return figures.presence_figure(photograph, found, title=subject.title)


def ratios(subject: Subject) -> Figure:
    """The share of the first photograph in the class token, layer by layer (Figure 4)."""
    mixed, labels, sources = mixture(subject)
    images = (batch(pixels) for pixels in sources)
    curves = analysis.ratio_curves(observer(subject), batch(mixed), labels, *images, token=0)
    return figures.ratio_figure(curves, first=NAMES[0])


def provenance(subject: Subject, point: tuple[float, float] = (0.42, 0.3)) -> Figure:
    """The provenance of the token at one point of the image, layer by layer."""
    _, _, (photograph, _) = mixture(subject)
    cells = (subject.cells, subject.cells)
    found = labeltrace.provenance(observer(subject), batch(photograph), cells, subject.layers)
    token = {name: token_at(at, point) for name, at in found.items()}
    return figures.provenance_figure(photograph, found, token, title=subject.title)


def token_at(found: analysis.Provenance, point: tuple[float, float]) -> tuple[int, int]:
    """Row and column of the token at a point, given as fractions of height and width."""
    assert found.grid is not None
    rows, columns = found.grid.shape
    return int(point[0] * rows), int(point[1] * columns)


@cache
def observer(subject: Subject) -> labeltrace.Observer:
    """The model with reproducible random weights, captured once for all its pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(subject.name, **subject.options)
    for name, weight in model.named_parameters():
        if name.endswith("qkv.weight"):  # the thirds are queries, keys and values
            weight.detach()[: len(weight) * 2 // 3].mul_(subject.sharpness)
    return labeltrace.Observer(model, torch.zeros(1, 3, subject.size, subject.size))


def mixture(subject: Subject) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The mixed pixels (3, H, W), their label image (1, 2, H, W), and the two photographs."""
    first, second = (photograph.pixels for photograph in sample_photographs(subject.size))
    top, left, bottom, right = (subject.size * edge // 224 for edge in BOX)
    share = torch.ones(1, subject.size, subject.size)
    share[:, top:bottom, left:right] = 0
    mixed = share * first + (1 - share) * second
    return mixed, torch.cat([share, 1 - share])[None], (first, second)


def batch(pixels: Tensor) -> Tensor:
    """Normalize pixels (3, H, W) to a batch of one."""
    return normalize(pixels[None], HALF, HALF)
