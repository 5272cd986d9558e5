"""Replica for timm's ConvNeXt 1 and 2: depth-wise convolutions mix, down-sampling averages.

The global response norm of version 2 scales each channel by a number without positions: a gate,
which moves no label.
"""

from __future__ import annotations

from timm.models.convnext import ConvNeXt, ConvNeXtBlock, ConvNeXtStage
from torch import Tensor, nn

from .dense import expect, pixel_labels, residual, through_convolution


def aligned_labels(model: nn.Module, images: Tensor, label_image: Tensor) -> Tensor:
    """Label of the logits, (B, K) float64, for labels (B, K, H, W); `images` don't matter."""
    model = expect(model, ConvNeXt)
    labels = pixel_labels(label_image)
    for layer in expect(model.stem, nn.Sequential):
        if isinstance(layer, nn.Conv2d):  # the others are normalization and activation
            labels = through_convolution(labels, layer)
    for stage in expect(model.stages, nn.Sequential):
        stage = expect(stage, ConvNeXtStage)
        if not isinstance(stage.downsample, nn.Identity):
            _, convolution = expect(stage.downsample, nn.Sequential)
            labels = through_convolution(labels, convolution)
        for block in stage.blocks:
            block = expect(block, ConvNeXtBlock)
            expect(block.shortcut, nn.Identity)
            labels = residual(through_convolution(labels, block.conv_dw), labels)
    return labels.mean(dim=(1, 2))
