"""PatchMix: paste random patches of the partner. `GridMixer` is the base for grids of patches."""

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
                f"use the patch size of the model."
            )

    def check_size(self, height: int, width: int) -> None:
        """Raise a `LabelError` for images that are a single patch: they cannot be mixed."""
        if max(height, width) <= self.patch:
            raise LabelError(
                f"{type(self).__name__}: images of {height} × {width} pixels are a single patch of "
                f"{self.patch}; set patch to a fraction of the size, such as the model's patch."
            )

    def draw_own_share(self, generator: torch.Generator | None) -> float:
        """The share of the patches that an image keeps: drawn, or fixed by `ratio`."""
        return super().draw_own_share(generator) if self.ratio is None else 1 - self.ratio

    def draw_partner_weights(
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
    """Paste randomly drawn patches of a partner image: random mixing in TL-Align's Table 7.

    The patches are drawn uniformly without replacement, like the patches that *Masked Autoencoders
    Are Scalable Vision Learners* (He et al., 2022, section 3) removes. If the patch does not divide
    the image, the last row and column of patches are smaller; labels are still exact to the pixel.

    Attributes:
        alpha: concentration of the Beta distribution of the share of kept patches, finite and above
            0.
        ratio: share of the patches that come from the partner, in [0, 1], rounded to whole patches;
            None draws it as 1 - lambda.
        patch: side of a patch in pixels; 16 in the paper, the patch size of its models.

    Raises:
        LabelError: a setting is outside its range; when called, the images are a single patch.

    Examples:
        >>> import torch
        >>> from labeltrace import PatchMix
        >>> mixer = PatchMix(ratio=0.25, patch=4)
        >>> batch = mixer(torch.rand(4, 3, 32, 32), torch.arange(4))
        >>> batch.labels.shape
        torch.Size([4, 2, 32, 32])
    """

    def draw_patches(
        self, count: int, rows: int, columns: int, generator: torch.Generator | None
    ) -> Tensor:
        """Draw `count` patches of a grid: (rows, columns) bool."""
        order = torch.randperm(rows * columns, generator=generator, device="cpu")
        return (order < count).view(rows, columns)
