"""The data and the model of the examples: scikit-learn's digits, and a small ViT for them."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.utils.data import TensorDataset

NUM_CLASSES = 10


def digits(first: int = 0, last: int = 1797) -> TensorDataset:
    """Pairs of an image, (1, 8, 8) float32 in [0, 1], and its class index."""
    data = load_digits()
    images = torch.tensor(data.images[first:last], dtype=torch.float32)[:, None] / 16
    return TensorDataset(images, torch.tensor(data.target[first:last]))


def small_vit(channels: int = 1, size: int = 8) -> VisionTransformer:
    """A ViT of three blocks over 4 × 4 patches."""
    return VisionTransformer(
        img_size=size, patch_size=size // 4, in_chans=channels, num_classes=NUM_CLASSES,
        embed_dim=48, depth=3, num_heads=3,
    )  # fmt: skip


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Share of images whose class has the largest logit."""
    return (logits.argmax(1) == targets).float().mean().item()
