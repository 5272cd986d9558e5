"""Pairing: the partner of every image, and which images share a draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["batch", "pair", "elem"]
"""Which images share a draw, with timm's names: all of them, the two of a pair, none."""

Partner = Literal["permutation", "flip", "roll"]
"""How an image's partner is found."""


@dataclass(frozen=True, eq=False)
class Pairing:
    """The partner and the draw of every image.

    Attributes:
        partner: (B,) int64 on the CPU, the index of each image's partner.
        draw: (B,) int64 on the CPU, the index of each image's draw.
    """

    partner: Tensor
    draw: Tensor


def count_draws(mode: Mode, batch: int) -> int:
    """The number of draws for a batch."""
    return {"batch": 1, "pair": (batch + 1) // 2, "elem": batch}[mode]


def draw_pairing(
    mode: Mode, partner: Partner, batch: int, generator: torch.Generator | None
) -> Pairing:
    """Pair the images of a batch.

    - flip: the first with the last, as in timm's `Mixup`; the middle image of an odd batch is its
      own partner.
    - roll: each image with the one before it, as in torchvision's `v2.CutMix` and `v2.MixUp`.
    - permutation: a random permutation, where an image may be its own partner. In pair mode, random
      pairs; one image of an odd batch, drawn at random, is its own partner.
    """
    index = torch.arange(batch, device="cpu")
    if partner == "flip":
        partners = index.flip(0)
    elif partner == "roll":
        partners = index.roll(1)
    else:
        partners = torch.randperm(batch, generator=generator, device="cpu")
        if mode == "pair":
            partners = _pair_neighbors(partners)

    if mode == "batch":
        draws = torch.zeros_like(index)
    elif mode == "elem":
        draws = index
    else:
        draws = torch.unique(torch.minimum(index, partners), return_inverse=True)[1]
    return Pairing(partners, draws)


def _pair_neighbors(order: Tensor) -> Tensor:
    """The partners when consecutive images in an order form pairs: first and second, and so on."""
    even = len(order) // 2 * 2
    partners = torch.arange(len(order), device="cpu")
    partners[order[:even:2]] = order[1:even:2]
    partners[order[1:even:2]] = order[:even:2]
    return partners
