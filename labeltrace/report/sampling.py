"""A sample of tokens, and the cells that they are made of, small enough for a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.report.encoding import in_levels, packed
from labeltrace.report.label_maps import others_of
from labeltrace.report.schema import Sources

DIGITS = 5  # of shares: a cell among ten thousand still counts


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """Some tokens of a place, evenly spread over its grid.

    Attributes:
        shape: rows and columns of the grid; zeros where there is none.
        rows, columns: which of them are kept.
        others: kept tokens without a place in the image.
        index: (T,) int64, all kept tokens: those of the grid row by row, then the others.
    """

    shape: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    others: tuple[int, ...]
    index: Tensor

    @classmethod
    def of(cls, grid: TokenGrid | None, count: int, side: int) -> Self:
        """At most `side` rows and columns of a place with `count` tokens."""
        others = others_of(grid, count)
        if grid is None:
            return cls((0, 0), (), (), tuple(others), torch.tensor(others, dtype=torch.int64))
        rows, columns = (_spread(size, side) for size in grid.shape)
        placed = grid.index[torch.tensor(rows)][:, torch.tensor(columns)].flatten()
        index = torch.cat([placed, torch.tensor(others, dtype=torch.int64)])
        return cls(grid.shape, rows, columns, tuple(others), index)

    def sources(self, shares: Tensor) -> Sources:
        """What the tokens are made of: `shares` (T, h, w), which sum to at most one.

        Their roots are kept, so that a hundredth of the largest share still is 25 levels.
        """
        peaks = shares.flatten(1).amax(1)
        relative = shares / peaks.clamp(min=torch.finfo(shares.dtype).tiny)[:, None, None]
        elsewhere = (1 - shares.flatten(1).sum(1)).clamp(min=0)
        return Sources(
            *self.shape,
            kept_rows=self.rows,
            kept_columns=self.columns,
            others=self.others,
            cells=packed(in_levels(relative.sqrt())),
            peaks=tuple(round(value, DIGITS) for value in peaks.tolist()),
            elsewhere=tuple(round(value, DIGITS) for value in elsewhere.tolist()),
        )


def _spread(size: int, most: int) -> tuple[int, ...]:
    """Which of `size` indices are kept: the middles of `most` equal parts."""
    if size <= most:
        return tuple(range(size))
    return tuple(int((part + 0.5) * size / most) for part in range(most))
