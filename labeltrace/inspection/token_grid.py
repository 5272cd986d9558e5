"""Token grids: the positions in the image of the tokens of a place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from labeltrace.flow import AdaptivePool, Convolve, LabelStep, Pool
from labeltrace.tracing.ablation import without_mixing
from labeltrace.tracing.trace import Trace

MOMENTS = 5  # columns of a label image of coordinates
MAX_VARIANCE = 1 / 24  # of a token with a position: half the variance of the whole image
ROUNDING = 1e-4
MIN_GAP = 0.25  # as a share of the largest gap between rows; closer tokens are in one row


@dataclass(frozen=True, eq=False, slots=True)
class TokenGrid:
    """The tokens of a place as a map.

    Attributes:
        index: (rows, columns) int64, the index of the token at each row and column. Tokens without
            a position in the image, such as a class token, are not in it.
    """

    index: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        rows, columns = self.index.shape
        return rows, columns

    def map(self, values: Tensor) -> Tensor:
        """Arrange values of tokens (B, N, ...) as a map (B, rows, columns, ...)."""
        return values[:, self.index]


def without_mixing_or_overlap(trace: Trace) -> Trace:
    """The trace without mixing, and with tiles instead of overlapping windows.

    The label of a token is then the region of the image at the token's position.
    """
    unmixed = without_mixing(trace, lambda field: False)
    steps = {field: _without_overlap(step) for field, step in unmixed.steps.items()}
    return replace(unmixed, steps=steps)


def coordinate_image(height: int, width: int, device: torch.device) -> Tensor:
    """A label image (1, 5, H, W) of each pixel's coordinates and their squares.

    Coordinates and squares are in [0, 1] and divided by four; the fifth label completes the sum to
    one.
    """
    rows = ((torch.arange(height, device=device) + 0.5) / height)[:, None].expand(height, width)
    columns = ((torch.arange(width, device=device) + 0.5) / width)[None].expand(height, width)
    moments = torch.stack([rows, columns, rows**2, columns**2]) / (MOMENTS - 1)
    return torch.cat([moments, 1 - moments.sum(0, keepdim=True)])[None]


def find_grid(moments: Tensor, whole: Tensor) -> TokenGrid | None:
    """The grid of the tokens; None if they form none.

    Args:
        moments: (N, 5), the labels of the tokens for the label image `coordinate_image`.
        whole: (5,), the mean of that label image, which is the label of tokens without a position.
    """
    row, column, row_square, column_square = (moments[:, :-1] * (MOMENTS - 1)).unbind(1)
    variance = torch.minimum(row_square - row**2, column_square - column**2)
    (placed,) = (variance < MAX_VARIANCE).nonzero(as_tuple=True)
    without_position = ((moments - whole).abs() < ROUNDING).all(1)
    if len(placed) < 2 or len(placed) + int(without_position.sum()) < len(moments):
        return None
    rows, columns = _ranks(row[placed]), _ranks(column[placed])
    height, width = int(rows.max()) + 1, int(columns.max()) + 1
    cells = rows * width + columns
    if height * width != len(placed) or len(cells.unique()) != len(placed):
        return None
    return TokenGrid(placed[cells.argsort()].reshape(height, width).cpu())


def _ranks(values: Tensor) -> Tensor:
    """The rank of each value among the distinct values, from the smallest."""
    ordered, order = values.sort()
    gaps = ordered.diff()
    steps = gaps > max(float(gaps.max()) * MIN_GAP, torch.finfo(values.dtype).eps * 8)
    ranks = torch.cat([steps.new_zeros(1), steps]).cumsum(0)
    return torch.empty_like(ranks).scatter_(0, order, ranks)


def _without_overlap(step: LabelStep) -> LabelStep:
    """The step with tiles instead of windows that slide over the image."""
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
