"""A check on the replicas' walks: the model's own forward code, made to move labels.

What mixes positions inside the model is replaced by its mixing of labels, what doesn't by nothing.
Then timm's code decides which steps there are, in which order, and what is added to what.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import LayerScale
from timm.models.mlp_mixer import Affine
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from . import swin, swin_v2, vision_transformer
from .dense import inputs_of, norm

NOT_FROM_THE_IMAGE = ("cls_token", "dist_token", "reg_token", "pos_embed")
SCALES = ("gamma", "ls1", "ls2")
LEAVES_LABELS_ALONE = (
    nn.Linear, nn.LayerNorm, nn.BatchNorm2d, nn.ReLU, nn.GELU, LayerScale, Affine
)  # fmt: skip
LEAVES_LABELS_ALONE_AS_A_WHOLE = ("mlp", "mlp_channels", "se")


def label_mover(model: nn.Module, images: Tensor, sources: int) -> nn.Module:
    """The model, changed in place: it maps label images to labels, both less their prior.

    Takes and returns (B, K, H, W) and (B, K) float64. Less the prior, because then the zeros that
    timm pads with, and tokens that don't come from the image, set to zero, carry the prior. Each
    residual connection adds what the contract averages, so it doubles the scale. Attention is
    fixed to what the unchanged model computes for `images`.
    """
    probabilities = {module: pair[0] for module, pair in attention_by_hand(model, images).items()}
    model.double()
    for path, parameter in model.named_parameters():
        name = path.rsplit(".", 1)[-1]
        if name in NOT_FROM_THE_IMAGE:
            parameter.data = torch.zeros(*parameter.shape[:-1], sources, dtype=torch.float64)
        elif name in SCALES:
            parameter.data = torch.ones(1, dtype=torch.float64)

    def replace_parts(module: nn.Module) -> None:
        for name, part in list(module.named_children()):
            replacement = _stand_in(name, part, probabilities)
            if replacement is None:
                replace_parts(part)
            else:
                setattr(module, name, replacement)

    replace_parts(model)
    return model


def attention_by_hand(model: nn.Module, images: Tensor) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """Probabilities (B, heads, N, N) and values (B, heads, N, d) of each attention module.

    For windowed attention B counts the windows of all images. Empty where there is no attention.
    """
    by_hand: dict[nn.Module, Callable[[Tensor], tuple[Tensor, Tensor]]] = {}
    if isinstance(model, VisionTransformer):
        for block in model.blocks:
            attention = block.get_submodule("attn")
            by_hand[attention] = partial(vision_transformer.attention_probabilities, attention)
    elif isinstance(model, SwinTransformer | SwinTransformerV2):
        version = swin if isinstance(model, SwinTransformer) else swin_v2
        for block in (module for module in model.modules() if isinstance(module, swin.SwinBlock)):
            size: Any = block.input_resolution
            rows, columns = size
            by_hand[block.attn] = partial(
                swin.masked_probabilities,
                block,
                rows=rows,
                columns=columns,
                scores=version.scores_and_values,
            )
    inputs = inputs_of(list(by_hand), model, images)
    return {
        attention: compute(tokens)
        for (attention, compute), tokens in zip(by_hand.items(), inputs, strict=True)
    }


def _stand_in(
    name: str, module: nn.Module, probabilities: dict[nn.Module, Tensor]
) -> nn.Module | None:
    """What moves labels as `module` moves features; None if its own code does, or its parts do."""
    if module in probabilities:
        return MixingOfTokens(probabilities[module].mean(dim=1))
    if name == "mlp_tokens":
        first, second = module.get_parameter("fc1.weight"), module.get_parameter("fc2.weight")
        return nn.Sequential(MixingOfColumns(first), MixingOfColumns(second))
    if name == "linear_tokens":
        return MixingOfColumns(module.get_parameter("weight"))
    if name == "reduction":
        return MeanOfFour()
    if isinstance(module, nn.Conv2d):
        return ConvolutionOfLabels(module)
    if isinstance(module, nn.MaxPool2d):
        settings = module.kernel_size, module.stride, module.padding
        return nn.AvgPool2d(*settings, count_include_pad=False)
    if name in LEAVES_LABELS_ALONE_AS_A_WHOLE or isinstance(module, LEAVES_LABELS_ALONE):
        return nn.Identity()
    return None


class MixingOfTokens(nn.Module):
    """Stands in for attention over tokens (B, N, K)."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, labels: Tensor, **_: object) -> Tensor:
        return self.matrix @ labels


class MixingOfColumns(nn.Module):
    """Stands in for a linear layer over tokens in the last axis (B, K, N)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.matrix = norm(weight.detach())

    def forward(self, labels: Tensor) -> Tensor:
        return labels @ self.matrix.T


class MeanOfFour(nn.Module):
    """Stands in for the reduction of four patches, which timm has put side by side."""

    def forward(self, labels: Tensor) -> Tensor:
        return labels.unflatten(-1, (4, -1)).mean(dim=-2)


class ConvolutionOfLabels(nn.Module):
    """Stands in for a convolution: the contract's kernel, through torch's own convolution."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        taps = norm(layer.weight.detach().abs().sum(dim=1).flatten(1)).mean(dim=0)
        if layer.kernel_size == layer.stride:
            taps = torch.ones_like(taps)
        self.kernel = taps.reshape(1, 1, *layer.kernel_size)
        self.convolve: Callable[..., Tensor] = partial(
            F.conv2d, stride=layer.stride, padding=layer.padding, dilation=layer.dilation
        )

    def forward(self, labels: Tensor) -> Tensor:
        sources = labels.shape[1]
        kernel = self.kernel.expand(sources, -1, -1, -1)
        mixed = self.convolve(labels, kernel, groups=sources)
        inside = self.convolve(torch.ones_like(labels), kernel, groups=sources)
        return mixed / inside
