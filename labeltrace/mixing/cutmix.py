"""CutMix: paste a box of the partner."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from labeltrace.mixing.mixer import BetaMixer
from labeltrace.mixing.sampling import draw_uniform


@dataclass(frozen=True)
class CutMix(BetaMixer):
    """Paste a box of a partner image into every image (Yun et al., 2019; eq. 1 of TL-Align).

    There is one box for each draw (one for the whole batch, unless `mode` is set otherwise). Its
    sides are `sqrt(1 - lambda)` of the image's, with lambda drawn from Beta(alpha, alpha). Its
    center is uniform over the pixels of the image, and the box is clipped to the image. Labels say
    where every pixel came from, so their mean is the exact mixing ratio. In eq. 1 the image itself
    is X1, and the mask M is 1 outside the box.

    Attributes:
        alpha: concentration of the Beta distribution, finite and above 0.

    Raises:
        LabelError: a setting is outside its range.

    Examples:
        >>> import torch
        >>> from labeltrace import CutMix
        >>> batch = CutMix(partner="flip")(torch.rand(2, 3, 32, 32), torch.tensor([5, 7]))
        >>> batch.labels.shape
        torch.Size([2, 2, 32, 32])
        >>> batch.classes.tolist()
        [[5, 7], [7, 5]]
    """

    def draw_partner_weights(
        self, own_share: float, height: int, width: int, generator: torch.Generator | None
    ) -> Tensor:
        """Draw the box: (H, W) bool."""
        side = math.sqrt(1 - own_share)
        rows = _draw_span(height, side, generator)
        columns = _draw_span(width, side, generator)
        box = torch.zeros(height, width, dtype=torch.bool, device="cpu")
        box[rows, columns] = True
        return box


def _draw_span(size: int, ratio: float, generator: torch.Generator | None) -> slice:
    """Draw one side of a box: `ratio * size` pixels around a uniform center, clipped."""
    center = size * draw_uniform(generator)
    half = size * ratio / 2
    return slice(max(0, round(center - half)), min(size, round(center + half)))
