"""BlockMix: paste blocks of patches of the partner until their share is reached."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from labeltrace.mixing.patches import GridMixer

MIN_BLOCK = 16  # patches
ASPECT_RANGE = (0.3, 1 / 0.3)  # rows / columns


@dataclass(frozen=True)
class BlockMix(GridMixer):
    """Paste random blocks of patches of a partner image: block-wise mixing in TL-Align's Table 7.

    Blocks are drawn one by one until the share is reached, as in the block-wise masking of *BEiT:
    BERT Pre-Training of Image Transformers* (Bao et al., 2022, Algorithm 1). The area of a block is
    uniform between 16 patches and the number of missing patches; its aspect ratio is between 0.3
    and 1 / 0.3. Three details are decided here:

    - The logarithm of the aspect ratio is uniform, so that wide and tall blocks are equally likely.
    - No block is larger than the number of missing patches.
    - Every block covers a missing patch, drawn at random. The number of patches is therefore always
      exact, and the loop ends; with blocks anywhere, as in Algorithm 1, the last patches could take
      arbitrarily long.

    If the patch does not divide the image, the last row and column of patches are smaller; labels
    are still exact to the pixel.

    Attributes:
        alpha: concentration of the Beta distribution of the share of kept patches, finite and above
            0.
        ratio: share of the patches that come from the partner, in [0, 1], rounded to whole patches;
            None draws it as 1 - lambda. BEiT masks 0.4.
        patch: side of a patch in pixels; 16 in the paper, the patch size of its models.

    Raises:
        LabelError: a setting is outside its range; when called, the images are a single patch.

    Examples:
        >>> import torch
        >>> from labeltrace import BlockMix
        >>> mixer = BlockMix(ratio=0.5, patch=4)
        >>> batch = mixer(torch.rand(4, 3, 32, 32), torch.arange(4))
        >>> batch.labels.shape
        torch.Size([4, 2, 32, 32])
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
            top = _draw_start(row, height, rows, numbers[3])
            left = _draw_start(column, width, columns, numbers[4])
            pasted[top : top + height, left : left + width] = True
            missing = count - int(pasted.sum())
        return pasted


def _block_size(
    missing: int, rows: int, columns: int, area_number: float, aspect_number: float
) -> tuple[int, int]:
    """Rows and columns of a block of at most `missing` patches, from two uniform numbers."""
    smallest = min(MIN_BLOCK, missing)
    area = smallest + area_number * (missing - smallest)
    low, high = map(math.log, ASPECT_RANGE)
    aspect = math.exp(low + aspect_number * (high - low))
    height = min(max(1, round(math.sqrt(area * aspect))), rows, missing)
    width = min(max(1, round(area / height)), columns, missing // height)
    return height, width


def _draw_start(covered: int, length: int, size: int, number: float) -> int:
    """Draw the start of a span that covers an index and stays inside, from a uniform number."""
    first, last = max(0, covered - length + 1), min(covered, size - length)
    return first + int(number * (last - first + 1))
