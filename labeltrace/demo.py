"""The demonstration: two photographs mixed by CutMix, and their labels in several models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from labeltrace.aligned import align
from labeltrace.errors import LayoutError
from labeltrace.figures import LabelMaps, label_map_figure
from labeltrace.mixing import MixedBatch
from labeltrace.model_loading import LoadedModel, load_model, load_or_random
from labeltrace.photographs import Photograph, mix_photographs, normalize

DECIMALS = 3  # decimals of the ratios in the table: random weights change them little

Loader = Callable[..., LoadedModel]
"""A function `load(name, pretrained=bool)` such as `labeltrace.model_loading.load_model`."""


@dataclass(frozen=True, slots=True)
class DemoModel:
    """A model of the demonstration: its title, and the name by which it is loaded."""

    title: str
    name: str


DEMO_MODELS = (
    DemoModel("DeiT-S", "deit_small_patch16_224"),
    DemoModel("Swin-T", "swin_tiny_patch4_window7_224"),
    DemoModel("Mixer-B", "mixer_b16_224"),  # timm has no trained weights for Mixer-S
    DemoModel("ConvNeXt-T", "convnext_tiny"),
)


@dataclass(frozen=True, eq=False, slots=True)
class DemoResult:
    """The result of the demonstration.

    Attributes:
        photographs: the two images.
        mixed: (3, H, W) in [0, 1], the two images mixed by CutMix.
        maps: for each model, its labels before and after alignment.
        random: for each model, whether its weights are random.
    """

    photographs: tuple[Photograph, Photograph]
    mixed: Tensor
    maps: tuple[LabelMaps, ...]
    random: tuple[bool, ...]

    def weights(self) -> str:
        """One sentence about the weights of the models."""
        if not any(self.random):
            return "Trained weights."
        if all(self.random):
            which = ""
        else:
            titles = (maps.title for maps, is_random in self._maps_and_randomness() if is_random)
            which = f" of {', '.join(titles)}"
        return f"Random weights{which}: without training, labels blend towards their average."

    def table(self) -> Table:
        """The mixing ratio before and after each model."""
        first, second = (photograph.name for photograph in self.photographs)
        table = Table(
            title=f"Mixing ratio: share of {first}, in per cent ({second} has the rest)",
            title_justify="left",
        )
        table.add_column("model")
        table.add_column("weights")
        for heading in ("before", "after", "change", "last tokens"):
            table.add_column(heading, justify="right")
        for maps, is_random in self._maps_and_randomness():
            lowest, highest = (100 * share.item() for share in maps.aligned.aminmax())
            change = round(100 * (maps.ratio_after - maps.ratio_before), DECIMALS)
            table.add_row(
                maps.title,
                "random" if is_random else "trained",
                f"{100 * maps.ratio_before:.{DECIMALS}f}",
                f"{100 * maps.ratio_after:.{DECIMALS}f}",
                f"{change + 0.0:+.{DECIMALS}f}",  # adding zero makes -0.0 a 0.0
                f"{lowest:.1f} – {highest:.1f}",
            )
        return table

    def figure(self) -> Figure:
        """Inputs, mixed image and the label maps of each model."""
        return label_map_figure(self.photographs, self.mixed, self.maps, note=self.weights())

    def _maps_and_randomness(self) -> zip[tuple[LabelMaps, bool]]:
        return zip(self.maps, self.random, strict=True)


def run_demo(
    photographs: tuple[Photograph, Photograph],
    models: Sequence[DemoModel] = DEMO_MODELS,
    *,
    pretrained: bool = False,
    load: Loader = load_model,
    console: Console,
) -> DemoResult:
    """Mix two photographs and follow their labels through models, in eval mode.

    Args:
        photographs: two images of the models' input size.
        models: the models, with `forward_features` and `forward_head` like timm's models.
        pretrained: whether to load trained weights. If the weights of a model are unavailable, the
            console says so, and the model has random weights.
        load: the function that loads a model by its name.
        console: where progress and messages are printed.

    Raises:
        LabelTraceError: a model cannot be loaded or aligned.
    """
    batch = mix_photographs(photographs)
    maps: list[LabelMaps] = []
    random: list[bool] = []
    last_reason = ""
    for number, model in enumerate(models, 1):
        with console.status(f"{model.title} ({number} of {len(models)})"):
            loaded, missing = load_or_random(model.name, pretrained=pretrained, load=load)
            if missing:
                reason = "the same reason" if missing == last_reason else missing
                console.print(f"{model.title} has random weights: {reason}", markup=False)
                last_reason = missing
            maps.append(label_maps(model.title, loaded, batch))
            random.append(not pretrained or bool(missing))
    return DemoResult(photographs, batch.images[0], tuple(maps), tuple(random))


def label_maps(title: str, loaded: LoadedModel, batch: MixedBatch) -> LabelMaps:
    """Follow the labels of a batch of one through a model, to its last tokens and its logits.

    Raises:
        CaptureError: the model does not accept images of this size, or cannot be captured.
        UnknownOperatorError: the model has operators without a rule.
        LayoutError: positions cannot be followed, or the last tokens form no square.
    """
    aligned = align(FeaturesAndLogits(loaded.model).eval())
    images = normalize(batch.images, loaded.mean, loaded.std)
    with torch.no_grad():
        (features, _), (feature_labels, labels) = aligned(images, batch.labels)
    prefix_tokens = getattr(loaded.model, "num_prefix_tokens", 0)
    token_labels = label_grid(features, feature_labels, prefix_tokens)[0, 0]
    height, width = token_labels.shape
    return LabelMaps(
        title=title,
        original=functional.adaptive_avg_pool2d(batch.labels, (height, width))[0, 0],
        aligned=token_labels,
        ratio_before=batch.mixing_ratio[0, 0].item(),
        ratio_after=labels[0, 0].item(),
    )


class FeaturesAndLogits(nn.Module):
    """A timm model that returns its last tokens and its logits, so that both get labels."""

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features, in the model's own layout, and logits of images (B, 3, H, W)."""
        features = self.model.forward_features(images)
        return features, self.model.forward_head(features)


def label_grid(features: Tensor, labels: Tensor, prefix_tokens: int = 0) -> Tensor:
    """The label of each token of the image as a map, for all layouts of features.

    Args:
        features: tokens (B, N, C), or a map (B, C, h, w) or (B, h, w, C).
        labels: their labels, with K sources instead of the C channels; K and C must differ.
        prefix_tokens: number of tokens at the start without a position in the image, such as
            class tokens.

    Returns:
        (B, K, h, w).

    Raises:
        LayoutError: the channel axis of the features cannot be determined, or their
            tokens form no square.
    """
    channels = [
        axis
        for axis, (size, label_size) in enumerate(zip(features.shape, labels.shape, strict=True))
        if size != label_size
    ]
    if len(channels) != 1 or features.dim() not in (3, 4):
        raise LayoutError(
            f"features of shape {tuple(features.shape)} with labels of shape "
            f"{tuple(labels.shape)} are neither tokens (B, N, C) nor a map (B, C, h, w) or "
            f"(B, h, w, C); use a model whose forward_features returns one of these"
        )
    grid = labels.movedim(channels[0], 1)
    if grid.dim() == 4:
        return grid
    grid = grid[:, :, prefix_tokens:]
    side = isqrt(grid.shape[-1])
    if side * side != grid.shape[-1]:
        raise LayoutError(
            f"{grid.shape[-1]} tokens after {prefix_tokens} prefix tokens form no square map; use "
            f"square images, or set the model's num_prefix_tokens"
        )
    return grid.unflatten(-1, (side, side))
