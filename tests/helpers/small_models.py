"""Small models of timm's for looking inside, their sizes distinct primes where they can be."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import torch
from timm.models import ConvNeXt, MlpMixer, SwinTransformer, VisionTransformer
from torch import Tensor, nn

from labeltrace import Observer

SIZE = (20, 28)  # patches of 4: a grid of 5 x 7


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A model whose weights are far from those of an initialization, so that layers differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = make()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
    return model.eval()


def small_vit(class_token: bool = True) -> nn.Module:
    return seeded(
        lambda: VisionTransformer(
            img_size=SIZE,
            patch_size=4,
            embed_dim=12,
            depth=3,
            num_heads=3,
            num_classes=5,
            class_token=class_token,
            global_pool="token" if class_token else "avg",
        )
    )


def small_swin() -> nn.Module:
    return seeded(
        lambda: SwinTransformer(
            img_size=(12, 20),
            patch_size=2,
            embed_dim=6,
            depths=(2, 1),
            num_heads=(2, 3),
            window_size=2,
            num_classes=5,
        )
    )


def small_mixer() -> nn.Module:
    return seeded(
        lambda: MlpMixer(img_size=12, patch_size=4, embed_dim=10, num_blocks=2, num_classes=5)
    )


def small_convnext() -> nn.Module:
    return seeded(lambda: ConvNeXt(depths=(1, 1, 0, 0), dims=(6, 10, 2, 2), num_classes=5))


SIZES: dict[Callable[[], nn.Module], tuple[int, int]] = {
    small_vit: SIZE,
    small_swin: (12, 20),
    small_mixer: (12, 12),
    small_convnext: (32, 40),
}


@functools.cache
def observed_model(make: Callable[[], nn.Module]) -> Observer:
    """An observer of a small model, captured once for all tests."""
    return Observer(make(), torch.zeros(2, 3, *SIZES[make]))


def attention_maps(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The attention of each block of a ViT, mean over heads: (B, N, N) float64, written out."""
    double = copy.deepcopy(model).double().eval()
    maps: list[Tensor] = []

    def attend(attention: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        batch, count, width = x.shape
        heads = attention.num_heads
        size = width // heads
        projected = x @ attention.qkv.weight.T + attention.qkv.bias
        mean = torch.zeros(batch, count, count, dtype=torch.float64)
        for head in range(heads):
            query = projected[..., head * size : (head + 1) * size]
            key = projected[..., width + head * size : width + (head + 1) * size]
            scores = torch.einsum("bqd,bkd->bqk", query, key) / size**0.5
            weights = (scores - scores.amax(-1, keepdim=True)).exp()
            mean += weights / weights.sum(-1, keepdim=True) / heads
        maps.append(mean)

    for block in double.blocks:
        block.attn.register_forward_pre_hook(attend)
    with torch.no_grad():
        double(images.double())
    return maps
