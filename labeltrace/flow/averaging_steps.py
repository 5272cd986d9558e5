"""Steps that average positions or streams: pooling, aggregation, sums, overlapping windows."""

from __future__ import annotations

from dataclasses import dataclass

from labeltrace.flow.flow import LabelStep, LabelView, OneSourceStep
from labeltrace.flow.operation import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool(OneSourceStep):
    """Equal weights over the positions of a window that lie inside the image."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False
    operation: Operation = Operation.SPATIAL_AGGREGATION


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptivePool(OneSourceStep):
    """Equal weights over windows that tile the image into ``output_size`` positions."""

    output_size: tuple[int, ...]
    operation: Operation = Operation.SPATIAL_AGGREGATION


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate(OneSourceStep):
    """The mean over the last ``count`` dimensions of the arranged field."""

    count: int
    operation: Operation = Operation.SPATIAL_AGGREGATION


@dataclass(frozen=True, slots=True, kw_only=True)
class Average(LabelStep):
    """``Norm(sum_i s_i Y_i)`` over broadcast label fields with the given shares."""

    sources: tuple[LabelView, ...]
    shares: tuple[int, ...]

    @property
    def labels(self) -> tuple[LabelView, ...]:
        return self.sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold(OneSourceStep):
    """Windows laid over one another: the mean of what lands on each position of ``sizes``.

    The labels have one batch dimension, one of the positions in a window and one of the windows.
    """

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    operation: Operation = Operation.SPATIAL_AGGREGATION
