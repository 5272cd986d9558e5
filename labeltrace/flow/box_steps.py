"""Regions of interest: bins of boxes that are read when the model runs."""

from __future__ import annotations

from dataclasses import dataclass

from labeltrace.flow.flow import OneSourceStep
from labeltrace.flow.operand import Operand
from labeltrace.flow.operation import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBoxes(OneSourceStep):
    """Each bin of a box is the mean of what it sees of a map, or of its samples there.

    The labels have three dimensions: the maps, their rows and their columns.

    Attributes:
        boxes: (boxes, 5): the number of the map, then x1, y1, x2, y2.
        operator: the operator of torchvision, `"roi_align"` and so on.
        size: the rows and columns of bins of each box.
        scale: by which the boxes are multiplied.
        sampling_ratio: how many samples a bin has along each axis; see torchvision.
        aligned: whether boxes are moved by half a pixel first.
        has_prior: whether the maps are the images of the batch: a bin that sees nothing has the
            prior of its image, otherwise the mean of its map.
    """

    boxes: Operand
    operator: str
    size: tuple[int, int]
    scale: float
    sampling_ratio: int = 0
    aligned: bool = False
    has_prior: bool = True
    operation: Operation = Operation.SPATIAL_MIXING
