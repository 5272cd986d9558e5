"""Replica for timm's MlpMixer with the blocks of MLP-Mixer, ResMLP and gMLP.

Token mixing is a learned matrix W: its labels move by Norm(W) (Table 10, spatial mixing).
"""

from __future__ import annotations

from timm.layers import GatedMlp, Mlp
from timm.models.mlp_mixer import (
    MixerBlock,
    MlpMixer,
    ResBlock,
    SpatialGatingBlock,
    SpatialGatingUnit,
)
from torch import Tensor, nn

from .dense import expect, norm, patch_means, pixel_labels, residual, tokens_of


def aligned_labels(model: nn.Module, images: Tensor, label_image: Tensor) -> Tensor:
    """Label of the logits, (B, K) float64, for labels (B, K, H, W); `images` don't matter."""
    model = expect(model, MlpMixer)
    if model.global_pool != "avg":
        raise TypeError(f"this replica knows avg pooling, not {model.global_pool!r}")
    labels = tokens_of(patch_means(pixel_labels(label_image), *model.stem.patch_size))
    for block in model.blocks:
        labels = residual(labels, mixed_tokens(block, labels))
        # x + MLP(x): the MLP mixes channels, so both sides of the sum carry the same label. gMLP
        # has no such second half, and averaging equals changes nothing.
        labels = residual(labels, labels)
    return labels.mean(dim=1)


def mixed_tokens(block: nn.Module, labels: Tensor) -> Tensor:
    """Labels (B, N, K) of the token-mixing branch of one block."""
    if isinstance(block, MixerBlock):
        # Two mixing matrices; the hidden layer between them has virtual positions of its own.
        mlp = expect(block.mlp_tokens, Mlp)
        hidden = norm(mlp.fc1.weight.detach()) @ labels
        return norm(mlp.fc2.weight.detach()) @ hidden
    if isinstance(block, ResBlock):
        return norm(block.linear_tokens.weight.detach()) @ labels
    block = expect(block, SpatialGatingBlock)
    # One half of the channels multiplies the other half, mixed over tokens. Neither went through
    # a sigmoid or the like, so neither is the gate: a product of equals averages their labels.
    gate = expect(expect(block.mlp_channels, GatedMlp).gate, SpatialGatingUnit)
    return residual(labels, norm(gate.proj.weight.detach()) @ labels)
