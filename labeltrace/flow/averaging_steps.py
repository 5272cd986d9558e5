"""Steps that average positions or streams: pooling, aggregation, sums, overlapping windows."""

from __future__ import annotations

from dataclasses import dataclass

from labeltrace.flow.flow import LabelStep, LabelView, OneSourceStep
from labeltrace.flow.operation import Operation
from labeltrace.layout import Size, SlidingWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool(OneSourceStep):
    """The mean over the positions of each window that are inside the image.

    The labels have one batch dimension, then one dimension for each of `windows`, whose padding is
    symmetric. With `ceil_mode` the last window may end outside the image.
    """

    windows: tuple[SlidingWindow, ...]
    ceil_mode: bool = False
    operation: Operation = Operation.SPATIAL_AGGREGATION


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptivePool(OneSourceStep):
    """The mean over windows that divide the image into `output_size` positions."""

    output_size: tuple[Size, ...]
    operation: Operation = Operation.SPATIAL_AGGREGATION


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate(OneSourceStep):
    """The mean over the last `count` dimensions of the arranged field."""

    count: int
    operation: Operation = Operation.SPATIAL_AGGREGATION


@dataclass(frozen=True, slots=True, kw_only=True)
class Average(LabelStep):
    """`Norm(sum_i s_i Y_i)` over broadcast label fields with the given shares."""

    sources: tuple[LabelView, ...]
    shares: tuple[Size, ...]

    @property
    def labels(self) -> tuple[LabelView, ...]:
        return self.sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold(OneSourceStep):
    """Overlapping windows put back on a map: the mean of all window positions that meet at a place.

    The labels have three dimensions: the batch, the positions in a window, and the windows. The
    map has `sizes`, one for each of `windows`, whose padding is symmetric.
    """

    sizes: tuple[Size, ...]
    windows: tuple[SlidingWindow, ...]
    operation: Operation = Operation.SPATIAL_AGGREGATION
