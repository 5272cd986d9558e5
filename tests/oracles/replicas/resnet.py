"""Replica for timm's ResNet: basic and bottleneck blocks, plain and deep stems, groups.

Squeeze-and-excitation gates scale channels and move no label.
"""

from __future__ import annotations

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from .dense import expect, pixel_labels, residual, through_convolution, through_pooling

POINT_WISE = (nn.Identity, nn.BatchNorm2d, nn.ReLU)


def aligned_labels(model: nn.Module, images: Tensor, label_image: Tensor) -> Tensor:
    """Label of the logits, (B, K) float64, for labels (B, K, H, W); `images` don't matter."""
    model = expect(model, ResNet)
    labels = pixel_labels(label_image)
    labels = through_layer(labels, model.conv1)
    labels = through_layer(labels, model.maxpool)
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in expect(stage, nn.Sequential):
            labels = through_block(labels, block)
    return labels.mean(dim=(1, 2))


def through_block(labels: Tensor, block: nn.Module) -> Tensor:
    """Label map after one residual block."""
    if isinstance(block, BasicBlock):
        convolutions = [block.conv1, block.conv2]
    else:
        block = expect(block, Bottleneck)
        convolutions = [block.conv1, block.conv2, block.conv3]
    expect(block.aa, nn.Identity)
    branch = labels
    for convolution in convolutions:
        branch = through_convolution(branch, convolution)
    shortcut = labels if block.downsample is None else through_layer(labels, block.downsample)
    return residual(branch, shortcut)


def through_layer(labels: Tensor, layer: nn.Module) -> Tensor:
    """Label map after a stem, a down-sampling or a part of one."""
    if isinstance(layer, nn.Sequential):
        for part in layer:
            labels = through_layer(labels, part)
        return labels
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        return through_pooling(labels, layer)
    if isinstance(layer, POINT_WISE):
        return labels
    return through_convolution(labels, layer)
