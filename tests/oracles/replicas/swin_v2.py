"""Replica for timm's SwinTransformerV2: Swin with cosine attention and a computed position bias.

Its post-norm changes no label; its walk over windows, shifts and merged patches is Swin's.
"""

from __future__ import annotations

import math

import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2, WindowAttention
from torch import Tensor, nn

from .dense import expect
from .swin import bias_by_distance, split_heads, walk

LARGEST_SCALE = 100.0  # on cosines, before the softmax
LARGEST_BIAS = 16.0
LARGEST_COORDINATE = 8.0


def aligned_labels(model: nn.Module, images: Tensor, label_image: Tensor) -> Tensor:
    """Label of the logits, (B, K) float64, for images (B, 3, H, W) and labels (B, K, H, W)."""
    return walk(expect(model, SwinTransformerV2), images, label_image, scores_and_values)


def scores_and_values(attention: nn.Module, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled cosines of queries and keys plus the relative position bias, and the values."""
    attention = expect(attention, WindowAttention)
    projected = windows @ attention.qkv.weight.detach().double().T
    if attention.q_bias is not None:
        query_bias, value_bias = attention.q_bias.detach(), attention.v_bias.detach()
        bias = torch.cat([query_bias, torch.zeros_like(query_bias), value_bias])
        projected = projected + bias.double()
    query, key, value = split_heads(projected, attention.num_heads)
    scale = attention.logit_scale.detach().double().exp().clamp(max=LARGEST_SCALE)
    scores = _directions(query) @ _directions(key).transpose(2, 3) * scale
    height, width = attention.window_size
    return scores + bias_by_distance(_bias_table(attention), height, width), value


def _directions(vectors: Tensor) -> Tensor:
    """Vectors of length one; a zero vector (the key of zero padding) stays zero."""
    length = vectors.square().sum(dim=-1, keepdim=True).sqrt()
    return vectors / length.clamp(min=1e-12)


def _bias_table(attention: WindowAttention) -> Tensor:
    """Bias for each distance, (2 height - 1, 2 width - 1, heads), from log-spaced coordinates."""
    height, width = attention.window_size
    trained_height, trained_width = attention.pretrained_window_size
    if trained_height == 0:
        trained_height, trained_width = height, width
    first, _, second = attention.cpb_mlp
    hidden, output = expect(first, nn.Linear), expect(second, nn.Linear)
    rows = []
    for down in range(-(height - 1), height):
        row = []
        for across in range(-(width - 1), width):
            distance = torch.tensor(
                [_coordinate(down, trained_height), _coordinate(across, trained_width)],
                dtype=torch.float64,
            )
            features = hidden.weight.detach().double() @ distance + hidden.bias.detach().double()
            logits = output.weight.detach().double() @ features.clamp(min=0)
            row.append(LARGEST_BIAS * logits.sigmoid())
        rows.append(torch.stack(row))
    return torch.stack(rows)


def _coordinate(distance: int, window: int) -> float:
    scaled = LARGEST_COORDINATE * distance / max(window - 1, 1)
    return math.copysign(math.log2(abs(scaled) + 1) / math.log2(LARGEST_COORDINATE), scaled)
