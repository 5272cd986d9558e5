"""Pictures of the contract: the effect of each kind of step on labels, computed by the library.

The layers are small and have random weights. Only frames and text are drawn by hand.
"""

from __future__ import annotations

from functools import partial

import timm
import torch
from matplotlib.figure import Figure
from timm.models.swin_transformer import PatchMerging
from torch import Tensor, nn
from torch.nn import functional

import labeltrace
from docs.pictures.drawing import (
    SOURCES,
    WEIGHTS,
    between,
    blocks,
    box_labels,
    cells,
    make_figure,
    outline,
    square,
)
from labeltrace.figures.style import CHANGE_COLORS, FONT_SIZE
from labeltrace.photographs import normalize, sample_photographs

HALF = (0.5, 0.5, 0.5)
BOX = (1.0, 3.0, 5.0, 6.5)  # box of the second image, in cells of an 8 × 8 map


def tokens() -> Figure:
    """A mixed photograph, the label image of its pixels, and the labels of its tokens."""
    model = timm.create_model("vit_tiny_patch16_224", patch_size=28, depth=1)
    first, second = (photograph.pixels for photograph in sample_photographs(224))
    label = box_labels(224, 224, (34, 76, 146, 190))
    mixed = label * first + (1 - label) * second
    image, labels = normalize(mixed[None], HALF, HALF), torch.stack([label, 1 - label])[None]
    joined = labeltrace.labels_at(model, image, labels, ["pos_drop"])["pos_drop"]

    figure, (photograph, pixels, map_, class_token) = make_figure(4, height=2.45)
    photograph.imshow(mixed.permute(1, 2, 0).numpy(), extent=(0, 8, 8, 0))
    for line in range(9):
        photograph.plot([0, 8], [line, line], [line, line], [0, 8], color="white", lw=0.8)
    square(photograph, "mixed image", "8 × 8 patches", (8, 8))
    pixels.imshow(label.numpy(), cmap=SOURCES, vmin=0, vmax=1, extent=(0, 8, 8, 0))
    square(pixels, "label image", "a label for each pixel", (8, 8))
    cells(map_, joined.map()[0, 0], "labels of the tokens", "a label for each patch")
    share = joined.labels[0, 0, 0].view(1, 1)
    cells(class_token, share, "class token", "the prior: the mean of all", numbers=".0%")
    class_token.set(xlim=(-1, 2), ylim=(2, -1))
    return figure


def operations() -> Figure:
    """Labels before and after one layer of each of the five operations."""
    torch.manual_seed(3)
    depthwise = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
    layers: dict[str, tuple[str, nn.Module]] = {
        "point-wise": ("GELU", nn.GELU()),
        "channel mixing": ("1 × 1 convolution", nn.Conv2d(3, 8, 1)),
        "spatial mixing": ("3 × 3 convolution", depthwise),
        "residual": ("x + convolution(x)", _Residual(depthwise)),
        "spatial aggregation": ("convolution, stride 2", nn.Conv2d(3, 8, 2, stride=2)),
    }
    label = box_labels(8, 8, (1, 3, 5, 7)).round()
    image, labels = torch.rand(1, 3, 8, 8), torch.stack([label, 1 - label])[None]
    figure, axes = make_figure(5, 2, height=3.3)
    for before, after, (operation, (example, layer)) in zip(
        axes[:5], axes[5:], layers.items(), strict=True
    ):
        cells(before, label, operation)
        cells(after, labeltrace.align(layer)(image, labels)[1][0, 0], "", example)
    axes[0].set_ylabel("before", fontsize=FONT_SIZE)
    axes[5].set_ylabel("after", fontsize=FONT_SIZE)
    return figure


def _tokens(seed: int) -> tuple[Tensor, _Attention, Tensor, Tensor]:
    """Features (1, 16, 8), a layer for them, the first source's (4, 4) share, labels (1, 2, 16)."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(1, 16, 8, generator=generator)
    layer = _Attention(generator)
    label = box_labels(4, 4, (0.5, 1.0, 3.0, 4.0))
    labels = torch.stack([label, 1 - label]).flatten(1)[None]
    return features, layer, label, labels


def attention() -> Figure:
    """Labels of tokens, an attention matrix, and the labels after it."""
    features, layer, label, labels = _tokens(5)
    after = labeltrace.align(layer, channel_dim=-1)(features, labels)[1][0, :, 0].view(4, 4)
    matrix = labeltrace.align(layer, channel_dim=-1)(features, torch.eye(16)[None])[1][0]

    token = 5
    figure, (before, weights, result) = make_figure(3, height=2.75)
    cells(before, label, "labels of 16 tokens", "Y", numbers=".0%")
    cells(
        weights,
        matrix,
        "attention, a row for each token",
        "Norm(W)",
        colors=WEIGHTS,
        limits=(0, matrix.max().item()),
    )
    outline(weights, token, 0, 1, 16)
    cells(result, after, "labels after it", "Norm(W) · Y", numbers=".0%")
    outline(result, *divmod(token, 4))
    between(before, "→")
    between(weights, "→")
    return figure


def residual() -> Figure:
    """Two streams and their sum; its label is the mean of both."""
    features, layer, label, labels = _tokens(11)
    both = labeltrace.align(_Residual(layer), channel_dim=-1)(features, labels)[1]
    branch = labeltrace.align(layer, channel_dim=-1)(features, labels)[1]
    sizes = features.norm().item(), layer(features).norm().item()

    figure, (one, other, result) = make_figure(3, height=2.75)
    cells(one, label, "stream x", f"size of the features: {sizes[0]:.1f}", numbers=".0%")
    shares = branch[0, :, 0].view(4, 4)
    cells(other, shares, "branch f(x)", f"size of the features: {sizes[1]:.1f}", numbers=".0%")
    cells(result, both[0, :, 0].view(4, 4), "x + f(x)", "half of each", numbers=".0%")
    between(one, "+")
    between(other, "=")
    return figure


def convolution() -> Figure:
    """The weights of a kernel, its label kernel, and the label kernel at a corner."""
    torch.manual_seed(2)
    layer = nn.Conv2d(2, 2, 3, padding=1, bias=False)
    cells_of = torch.eye(25).view(1, 25, 5, 5)
    moved = labeltrace.align(layer)(torch.rand(1, 2, 5, 5), cells_of)[1][0]  # (25, 5, 5)
    inside, corner = (moved[:, row, row].view(5, 5) for row in (2, 0))
    figure, (weights, kernel, at_corner) = make_figure(3, height=2.75)
    one = layer.weight[0, 0].detach()
    reach = one.abs().max().item()
    cells(
        weights,
        one,
        "a kernel's weights",
        "one input to one output channel",
        colors=CHANGE_COLORS,
        limits=(-reach, reach),
        numbers=".2f",
    )
    shares = partial(cells, colors=WEIGHTS, limits=(0, corner.max().item()), numbers=".0%")
    shares(kernel, inside[1:4, 1:4], "its label kernel", "magnitudes, all channels")
    edge = functional.pad(corner[:2, :2], (1, 0, 1, 0), value=float("nan"))  # NaN is outside
    shares(at_corner, edge, "in the corner of an image", "only the taps inside")
    return figure


def windows() -> Figure:
    """The provenance of one token through two blocks of Swin and its patch merging."""
    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=24,
        depths=(2, 1),
        num_heads=(2, 4),
    )
    places = ["layers.0.blocks.0", "layers.0.blocks.1", "layers.1.downsample"]
    found = labeltrace.provenance(model, torch.randn(1, 3, 32, 32), grid=(8, 8), at=places)
    titles = ["block 1: windows", "block 2: shifted windows", "patch merging"]
    borders = [[0, 4, 8], [0, 2, 6, 8], [0, 2, 4, 6, 8]]
    sizes = [1, 1, 2]  # side of a token, in cells
    figure, axes = make_figure(3, height=2.75)
    for each, place, title, lines, size in zip(axes, places, titles, borders, sizes, strict=True):
        row, column = 3 // size, 2 // size
        shares = found[place].token(row, column)[0]
        below = f"cells that token ({row}, {column}) holds: {(shares > 1e-4).sum().item()}"
        cells(each, shares ** (1 / 3), title, below, colors=WEIGHTS, limits=(0, 0.9))
        for line in lines:
            each.plot([0, 8], [line, line], [line, line], [0, 8], color="#D55E00", lw=1.3)
        outline(each, row * size, column * size, size, size)
    return figure


def merging() -> Figure:
    """Patch merging: four tokens become one; its label is their mean."""
    torch.manual_seed(0)
    layer = PatchMerging(6, 12)
    label = box_labels(8, 8, BOX)
    labels = torch.stack([label, 1 - label])[None]
    after = labeltrace.align(layer, channel_dim=-1)(torch.rand(1, 8, 8, 6), labels)[1][0, ..., 0]
    figure, (before, result) = make_figure(2, height=2.6, width=4.9)
    cells(before, label, "8 × 8 tokens")
    blocks(before, (8, 8), 2)
    cells(result, after, "4 × 4 merged tokens", numbers=".0%")
    between(before, "→")
    return figure


def maxima() -> Figure:
    """Max pooling: labels by default, and with `FOLLOW_MAXIMA`."""
    generator = torch.Generator().manual_seed(4)
    image = torch.rand(1, 1, 8, 8, generator=generator)
    label = box_labels(8, 8, (1, 3, 5, 7)).round()
    labels = torch.stack([label, 1 - label])[None]
    layer = nn.MaxPool2d(2)
    mean = labeltrace.align(layer)(image, labels)[1][0, 0]
    followed = labeltrace.align(layer, rules=labeltrace.FOLLOW_MAXIMA)(image, labels)[1][0, 0]
    figure, axes = make_figure(4, height=2.3)
    cells(axes[0], image[0, 0], "values", "the largest of each four", colors="gray")
    cells(axes[1], label, "labels")
    for each in axes[:2]:
        blocks(each, (8, 8), 2)
    for window in range(16):
        top, left = 2 * (window // 4), 2 * (window % 4)
        best = image[0, 0, top : top + 2, left : left + 2].argmax().item()
        for each in axes[:2]:
            outline(each, top + best // 2, left + best % 2, color="#E69F00", line=1.4)
    cells(axes[2], mean, "max pooling", "approximate: the mean", numbers=".0%")
    cells(axes[3], followed, "max pooling, followed", "exact: the maximum's", numbers=".0%")
    return figure


class _Attention(nn.Module):
    """One head of self-attention over features of width 8, with uneven attention."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.query, self.key = (
            nn.Parameter(0.3 * torch.randn(8, 8, generator=generator)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(x @ self.query, x @ self.key, x)


class _Residual(nn.Module):
    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)
