"""PatchMix: patches of the partner are pasted, drawn one by one; and the grid that they lie on."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from labeltrace.errors import LabelError
from labeltrace.mixing.mixer import BetaMixer


@dataclass(frozen=True)
class GridMixer(BetaMixer):
    """A mixer that pastes whole patches of a grid."""

    ratio: float | None = None
    patch: int = 16

    def __post_init__(self) -> None:
        name = type(self).__name__
        super().__post_init__()
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise LabelError(
                f"{name}: ratio must be a share of the patches in [0, 1], got {self.ratio}; "
                f"None draws it from Beta(alpha, alpha)."
            )
        if isinstance(self.patch, bool) or not isinstance(self.patch, int) or self.patch < 1:
            raise LabelError(
                f"{name}: patch must be a side in whole pixels, 1 or more, got {self.patch!r}; "
                f"take the patch size of the model."
            )

    def check_size(self, height: int, width: int) -> None:
        """Refuse images that are a single patch, which could only be swapped whole."""
        if max(height, width) <= self.patch:
            raise LabelError(
                f"{type(self).__name__}: images of {height} × {width} pixels are a single patch of "
                f"{self.patch}; set patch to a fraction of the size, such as the model's patch."
            )

    def draw_own_share(self, generator: torch.Generator | None) -> float:
        """Draw the share of the patches that an image keeps, unless it is fixed."""
        return super().draw_own_share(generator) if self.ratio is None else 1 - self.ratio

    def draw_partner_share(
        self, own_share: float, height: int, width: int, generator: torch.Generator | None
    ) -> Tensor:
        """Draw the patches that are pasted: (H, W) bool."""
        rows, columns = -(-height // self.patch), -(-width // self.patch)
        count = round((1 - own_share) * rows * columns)
        grid = self.draw_patches(count, rows, columns, generator)
        pixels = grid.repeat_interleave(self.patch, 0).repeat_interleave(self.patch, 1)
        return pixels[:height, :width]

    @abstractmethod
    def draw_patches(
        self, count: int, rows: int, columns: int, generator: torch.Generator | None
    ) -> Tensor:
        """Draw `count` patches of a grid: (rows, columns) bool on the CPU."""


@dataclass(frozen=True)
class PatchMix(GridMixer):
    """Paste randomly drawn patches of a partner image: the random mixing of TL-Align's Table 7.

    The patches are drawn uniformly, without replacement, as the random masking of *Masked
    Autoencoders Are Scalable Vision Learners* (He et al., 2022, section 3) draws those that it
    removes. Where the patch does not divide the image, the last row and column of patches are
    smaller; labels are exact to the pixel all the same.

    Attributes:
        alpha: concentration of the Beta distribution that the share of kept patches is drawn from,
            finite and above 0.
        ratio: share of the patches that come from the partner, in [0, 1], to the nearest whole
            patch; drawn as 1 - lambda where None.
        patch: side of a patch in pixels; the paper's is 16, its models' patch size.

    Raises:
        LabelError: a setting outside of its range; at the call, images that are a single patch.
    """

    def draw_patches(
        self, count: int, rows: int, columns: int, generator: torch.Generator | None
    ) -> Tensor:
        """Draw `count` patches of a grid: (rows, columns) bool."""
        order = torch.randperm(rows * columns, generator=generator, device="cpu")
        return (order < count).view(rows, columns)
