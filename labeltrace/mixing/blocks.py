"""BlockMix: blocks of patches of the partner are pasted, until their share is reached."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from labeltrace.mixing.patches import GridMixer

SMALLEST_BLOCK = 16  # patches
ASPECT = (0.3, 1 / 0.3)  # rows by columns


@dataclass(frozen=True)
class BlockMix(GridMixer):
    """Paste random blocks of patches of a partner image: block-wise mixing of TL-Align's Table 7.

    Blocks are laid one by one, as in the block-wise masking of *BEiT: BERT Pre-Training of Image
    Transformers* (Bao et al., 2022, Algorithm 1): the area is uniform between 16 patches and what
    is missing, the aspect ratio lies between 0.3 and 1 / 0.3, until the share is reached. Three
    choices are made here. The aspect ratio is uniform in its logarithm, so that flat and upright
    blocks are alike. No block is larger than what is missing, and each lies over a missing patch,
    drawn at random, so that the count of patches is always exact and reached in as many steps at
    most; with a block anywhere, as in Algorithm 1, the last patches could take forever. Where the
    patch does not divide the image, the last row and column of patches are smaller; labels are
    exact to the pixel all the same.

    Attributes:
        alpha: concentration of the Beta distribution that the share of kept patches is drawn from,
            finite and above 0.
        ratio: share of the patches that come from the partner, in [0, 1], to the nearest whole
            patch; drawn as 1 - lambda where None. BEiT masks 0.4.
        patch: side of a patch in pixels; the paper's is 16, its models' patch size.

    Raises:
        LabelError: a setting outside of its range; at the call, images that are a single patch.
    """

    def draw_patches(
        self, count: int, rows: int, columns: int, generator: torch.Generator | None
    ) -> Tensor:
        """Draw `count` patches of a grid, in blocks: (rows, columns) bool."""
        pasted = torch.zeros(rows, columns, dtype=torch.bool, device="cpu")
        missing = count
        while missing:
            numbers = torch.rand(5, generator=generator, dtype=torch.float64, device="cpu").tolist()
            height, width = _block_size(missing, rows, columns, numbers[0], numbers[1])
            free = (~pasted).flatten().nonzero().flatten()
            row, column = divmod(int(free[int(numbers[2] * len(free))]), columns)
            top = _first_index(row, height, rows, numbers[3])
            left = _first_index(column, width, columns, numbers[4])
            pasted[top : top + height, left : left + width] = True
            missing = count - int(pasted.sum())
        return pasted


def _block_size(
    missing: int, rows: int, columns: int, for_area: float, for_aspect: float
) -> tuple[int, int]:
    """Return rows and columns of a block of `missing` patches at most, by two uniform numbers."""
    smallest = min(SMALLEST_BLOCK, missing)
    area = smallest + for_area * (missing - smallest)
    low, high = map(math.log, ASPECT)
    aspect = math.exp(low + for_aspect * (high - low))
    height = min(max(1, round(math.sqrt(area * aspect))), rows, missing)
    width = min(max(1, round(area / height)), columns, missing // height)
    return height, width


def _first_index(covered: int, length: int, size: int, number: float) -> int:
    """Draw where a span starts that holds an index and stays inside, by a uniform number."""
    first, last = max(0, covered - length + 1), min(covered, size - length)
    return first + int(number * (last - first + 1))
