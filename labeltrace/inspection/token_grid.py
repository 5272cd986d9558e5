"""Token grids: where in the image the tokens of a place lie."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from labeltrace.flow import AdaptivePool, Convolve, LabelStep, Pool
from labeltrace.tracing.ablation import without_mixing
from labeltrace.tracing.trace import Trace

MOMENTS = 5  # columns of a label image of coordinates
MAX_VARIANCE = 1 / 24  # variance of a token with a place: half of that of the whole image
ROUNDING = 1e-4
SMALLEST_GAP = 0.25  # of the largest gap between rows: what lies closer is one row


@dataclass(frozen=True, eq=False, slots=True)
class TokenGrid:
    """The tokens of a place as a map.

    Attributes:
        index: (rows, columns) int64, the token that lies there.  Tokens that are not in it, such
            as a class token, have no place in the image.
    """

    index: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.index.shape
        return rows, columns

    def map(self, values: Tensor) -> Tensor:
        """Values of tokens (B, N, ...) as a map (B, rows, columns, ...)."""
        return values[:, self.index]


def without_mixing_or_overlap(trace: Trace) -> Trace:
    """The trace in which tokens stay where they are, as far as their number allows.

    Nothing is mixed, and windows that stride over the image become tiles, so that what is left of
    a token's label is the piece of the image that it stands for.
    """
    still = without_mixing(trace, lambda field: False)
    return replace(still, steps={field: _tiled(step) for field, step in still.steps.items()})


def coordinates(height: int, width: int, device: torch.device) -> Tensor:
    """A label image (1, 5, H, W) whose columns are a pixel's coordinates and their squares.

    They lie in [0, 1], divided by four; the last column is the rest to one.
    """
    rows = ((torch.arange(height, device=device) + 0.5) / height)[:, None].expand(height, width)
    columns = ((torch.arange(width, device=device) + 0.5) / width)[None].expand(height, width)
    moments = torch.stack([rows, columns, rows**2, columns**2]) / (MOMENTS - 1)
    return torch.cat([moments, 1 - moments.sum(0, keepdim=True)])[None]


def grid_from(moments: Tensor, whole: Tensor) -> TokenGrid | None:
    """The grid in which tokens lie; None if they form none.

    ``moments`` (N, 5) are what has become of :func:`coordinates`, ``whole`` (5,) is the mean of
    those over the image: what tokens without a place have.
    """
    row, column, row_square, column_square = (moments[:, :-1] * (MOMENTS - 1)).unbind(1)
    spread = torch.minimum(row_square - row**2, column_square - column**2)
    (placed,) = (spread < MAX_VARIANCE).nonzero(as_tuple=True)
    everywhere = ((moments - whole).abs() < ROUNDING).all(1)
    if len(placed) < 2 or len(placed) + int(everywhere.sum()) < len(moments):
        return None
    rows, columns = _ranks(row[placed]), _ranks(column[placed])
    height, width = int(rows.max()) + 1, int(columns.max()) + 1
    cells = rows * width + columns
    if height * width != len(placed) or len(cells.unique()) != len(placed):
        return None
    return TokenGrid(placed[cells.argsort()].reshape(height, width).cpu())


def _ranks(values: Tensor) -> Tensor:
    """Which of the distinct values, counted from the least, each one is."""
    ordered, order = values.sort()
    gaps = ordered.diff()
    steps = gaps > max(float(gaps.max()) * SMALLEST_GAP, torch.finfo(values.dtype).eps * 8)
    ranks = torch.cat([steps.new_zeros(1), steps]).cumsum(0)
    return torch.empty_like(ranks).scatter_(0, order, ranks)


def _tiled(step: LabelStep) -> LabelStep:
    """Windows that slide over the image, as tiles that do not overlap."""
    if not isinstance(step, (Convolve, Pool)) or len(step.field_sizes) != len(
        step.source.arrangement.shape
    ):
        return step
    return AdaptivePool(
        operation=step.operation,
        layout=step.layout,
        field_shape=step.field_shape,
        source=step.source,
        output_size=step.field_sizes[1:],
    )
