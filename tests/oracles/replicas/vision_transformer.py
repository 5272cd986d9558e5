"""Replica for timm's VisionTransformer and its distilled DeiT: equations 5 to 11 of the paper."""

from __future__ import annotations

import torch
from timm.layers import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from .dense import expect, inputs_of, patch_means, pixel_labels, prior, residual, tokens_of


def aligned_labels(model: nn.Module, images: Tensor, label_image: Tensor) -> Tensor:
    """Label of the logits, (B, K) float64, for images (B, 3, H, W) and labels (B, K, H, W)."""
    model = expect(model, VisionTransformer)
    labels = final_token_labels(model, images, label_image)
    if isinstance(model, VisionTransformerDistilled):
        # The prediction is the sum of two classifiers: one reads the class token, one the
        # distillation token.
        return residual(labels[:, 0], labels[:, 1])
    if model.global_pool == "token":
        return labels[:, 0]
    if model.global_pool == "avg":
        first = 0 if model.pool_include_prefix else model.num_prefix_tokens
        return labels[:, first:].mean(dim=1)
    raise TypeError(f"this replica knows token and avg pooling, not {model.global_pool!r}")


def first_token_labels(model: nn.Module, label_image: Tensor) -> Tensor:
    """Labels (B, N, K) float64 of all tokens before the first block, equation 5."""
    model = expect(model, VisionTransformer)
    patch_rows, patch_columns = model.patch_embed.patch_size
    patches = tokens_of(patch_means(pixel_labels(label_image), patch_rows, patch_columns))
    # Class, distillation and register tokens don't come from the image: they start with the prior.
    prefix = [prior(label_image)[:, None]] * model.num_prefix_tokens
    return torch.cat([*prefix, patches], dim=1)


def final_token_labels(model: nn.Module, images: Tensor, label_image: Tensor) -> Tensor:
    """Labels (B, N, K) float64 of all tokens after the last block, equations 7 to 11."""
    model = expect(model, VisionTransformer)
    labels = first_token_labels(model, label_image)
    blocks = [expect(block, Block) for block in model.blocks]
    attentions = [expect(block.attn, Attention) for block in blocks]
    attention_inputs = inputs_of(attentions, model, images)
    for attention, tokens in zip(attentions, attention_inputs, strict=True):
        probabilities, _ = attention_probabilities(attention, tokens)
        labels = residual(labels, probabilities.mean(dim=1) @ labels)
        # x + MLP(x): the MLP mixes channels, so both sides of the sum carry the same label.
        labels = residual(labels, labels)
    return labels


def attention_probabilities(attention: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (B, heads, N, N) and values (B, heads, N, d) for float64 tokens (B, N, C)."""
    attention = expect(attention, Attention)
    batch, count, _ = tokens.shape
    projected = tokens @ attention.qkv.weight.detach().double().T
    if attention.qkv.bias is not None:
        projected = projected + attention.qkv.bias.detach().double()
    query, key, value = (
        part.reshape(batch, count, attention.num_heads, -1).transpose(1, 2)
        for part in projected.chunk(3, dim=-1)
    )
    query, key = _normalized(attention.q_norm, query), _normalized(attention.k_norm, key)
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    return scores.softmax(dim=-1), value


def _normalized(layer: nn.Module, features: Tensor) -> Tensor:
    if isinstance(layer, nn.Identity):
        return features
    layer = expect(layer, nn.LayerNorm)
    centerd = features - features.mean(dim=-1, keepdim=True)
    scale = (centerd.square().mean(dim=-1, keepdim=True) + layer.eps).sqrt()
    return centerd / scale * layer.weight.detach().double() + layer.bias.detach().double()
