"""MixUp: image and partner are blended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from labeltrace.mixing.mixer import BetaMixer


@dataclass(frozen=True)
class MixUp(BetaMixer):
    """Blend every image with a partner image (Zhang et al., 2018; eq. 1 with a constant mask).

    One lambda for each draw (one for the whole batch, unless `mode` says otherwise), from
    Beta(alpha, alpha): `lambda * image + (1 - lambda) * partner`. Every position has the same
    label. The blend is computed in float32 at least.

    Attributes:
        alpha: concentration of the Beta distribution, finite and above 0.

    Raises:
        LabelError: a setting outside of its range.
    """

    blends: ClassVar[bool] = True

    alpha: float = 0.8

    def draw_partner_share(
        self, own_share: float, height: int, width: int, generator: torch.Generator | None
    ) -> Tensor:
        """Return the partner's weight: (1, 1) float64."""
        return torch.full((1, 1), 1 - own_share, dtype=torch.float64, device="cpu")
