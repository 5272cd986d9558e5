"""A sample of tokens and the shares of cells in them, small enough for a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.report.encoding import encode, to_levels
from labeltrace.report.label_maps import tokens_without_position
from labeltrace.report.schema import Sources

DIGITS = 5  # digits of shares: one cell of ten thousand is not rounded to zero


@dataclass(frozen=True, eq=False, slots=True)
class TokenSample:
    """Some tokens of a place, evenly spread over its grid.

    Attributes:
        shape: rows and columns of the grid; zeros if there is none.
        rows, columns: indices of the sampled rows and columns.
        others: sampled tokens without a position in the image.
        index: (T,) int64, all sampled tokens: those of the grid row by row, then the others.
    """

    shape: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    others: tuple[int, ...]
    index: Tensor

    @classmethod
    def draw(cls, grid: TokenGrid | None, count: int, side: int) -> Self:
        """Sample at most `side` rows and columns of a place with `count` tokens."""
        others = tokens_without_position(grid, count)
        if grid is None:
            return cls((0, 0), (), (), tuple(others), torch.tensor(others, dtype=torch.int64))
        rows, columns = (_evenly_spaced(size, side) for size in grid.shape)
        placed = grid.index[torch.tensor(rows)][:, torch.tensor(columns)].flatten()
        index = torch.cat([placed, torch.tensor(others, dtype=torch.int64)])
        return cls(grid.shape, rows, columns, tuple(others), index)

    def sources(self, shares: Tensor) -> Sources:
        """Encode the shares (T, h, w) of cells in the tokens; they sum to at most one.

        Square roots are stored, so that 1 % of the largest share is still 25 levels.
        """
        peaks = shares.flatten(1).amax(1)
        relative = shares / peaks.clamp(min=torch.finfo(shares.dtype).tiny)[:, None, None]
        elsewhere = (1 - shares.flatten(1).sum(1)).clamp(min=0)
        return Sources(
            *self.shape,
            kept_rows=self.rows,
            kept_columns=self.columns,
            others=self.others,
            cells=encode(to_levels(relative.sqrt())),
            peaks=tuple(round(value, DIGITS) for value in peaks.tolist()),
            elsewhere=tuple(round(value, DIGITS) for value in elsewhere.tolist()),
        )


def _evenly_spaced(size: int, count: int) -> tuple[int, ...]:
    """The indices, out of `size`, in the middle of `count` equal parts."""
    if size <= count:
        return tuple(range(size))
    return tuple(int((part + 0.5) * size / count) for part in range(count))
