"""MixUp: blend image and partner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from labeltrace.mixing.mixer import BetaMixer


@dataclass(frozen=True)
class MixUp(BetaMixer):
    """Blend every image with a partner image (Zhang et al., 2018; eq. 1 with a constant mask).

    There is one lambda for each draw (one for the whole batch, unless `mode` is set otherwise),
    drawn from Beta(alpha, alpha): `lambda * image + (1 - lambda) * partner`. Every position has the
    same label. The blend is computed in float32 or wider.

    Attributes:
        alpha: concentration of the Beta distribution, finite and above 0.

    Raises:
        LabelError: a setting is outside its range.

    Examples:
        >>> import torch
        >>> from labeltrace import MixUp
        >>> batch = MixUp(partner="flip")(torch.rand(2, 3, 32, 32), torch.tensor([5, 7]))
        >>> batch.labels.shape
        torch.Size([2, 2, 1, 1])
    """

    blends: ClassVar[bool] = True

    alpha: float = 0.8

    def draw_partner_weights(
        self, own_share: float, height: int, width: int, generator: torch.Generator | None
    ) -> Tensor:
        """The partner's weight: (1, 1) float64."""
        return torch.full((1, 1), 1 - own_share, dtype=torch.float64, device="cpu")
