"""Provenance: which cells of the input end up in each token.

For a plain ViT this is attention rollout (Abnar and Zuidema, "Quantifying Attention Flow in
Transformers", ACL 2020), with what a class token holds at first spread evenly over the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labeltrace.analysis.source_chunks import chunks, joined, one_hot_image
from labeltrace.errors import LabelError
from labeltrace.inspection.observer import Observer, observer_of
from labeltrace.inspection.places import OUTPUT, Place, with_outputs_at
from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.progress import tracked


@dataclass(frozen=True, eq=False, slots=True)
class Provenance:
    """What the tokens of one place are made of.

    Attributes:
        place: the node.
        shares: (B, N, h, w) float32: the share that each of the h x w cells of the input has in
            each of the N tokens; they sum to one.
        grid: where the tokens lie in the image; None where they form no map.
    """

    place: Place
    shares: Tensor
    grid: TokenGrid | None

    def token(self, row: int, column: int) -> Tensor:
        """The shares (B, h, w) of the cells in the token at a place of the :attr:`grid`.

        Raises:
            LabelError: the tokens form no map, or it has no such place.
        """
        if self.grid is None:
            raise LabelError(f"the tokens of {self.place.node} form no map; index shares instead")
        rows, columns = self.grid.shape
        if not (0 <= row < rows and 0 <= column < columns):
            raise LabelError(
                f"there is no token ({row}, {column}) at {self.place.node}, which has {rows} rows "
                f"of {columns} tokens"
            )
        return self.shares[:, int(self.grid.index[row, column])]


def provenance(
    model: nn.Module | Observer,
    images: Tensor,
    grid: tuple[int, int],
    at: Sequence[str] = (OUTPUT,),
) -> dict[str, Provenance]:
    """Which cells of the input end up in each output token, or at any other node.

    The cells go through the label graph as sources, in chunks of :data:`~labeltrace.analysis.
    chunks.CHUNK_BYTES`, so that memory does not grow with their number.

    Args:
        model: the model, or an :class:`~labeltrace.inspection.observer.Observer` of it.
        images: (B, C, H, W).
        grid: rows and columns of cells; pixels go to the cell in which their upper left corner
            lies.
        at: nodes, modules' paths, patterns of paths or ``"output"``; see
            :func:`labeltrace.inspection.places.places_named`.

    Returns:
        By name, in the order of ``at``.

    Raises:
        LabelError: the grid has no cells, or more of them than pixels; there is no such node.
        LabelTraceError: the model cannot be captured or traced.
    """
    cells = cell_of(grid, images)
    observer = observer_of(model, images)
    observer.check(images)
    seen = observer.named(at)
    program = observer.program(with_outputs_at(observer.trace, seen.values()))
    parts: list[tuple[Tensor, ...]] = []
    runs = chunks(len(images), cells.shape, grid[0] * grid[1])
    for run in tracked(runs, "provenance"):
        image = one_hot_image(cells, run, len(images))
        parts.append(observer.run_program(program, images, image))
    grids = observer.grids(images, seen)
    return {
        name: Provenance(place, joined(iter(fields)).unflatten(-1, grid), grids[name])
        for (name, place), fields in zip(seen.items(), zip(*parts, strict=True), strict=True)
    }


def cell_of(grid: tuple[int, int], images: Tensor) -> Tensor:
    """The cell, counted row by row, of each pixel: (H, W) int64.

    Raises:
        LabelError: the grid does not fit the images.
    """
    if not isinstance(images, Tensor) or images.dim() != 4:
        raise LabelError("images must be a tensor (B, C, H, W)")
    height, width = images.shape[2:]
    rows, columns = grid
    if not (1 <= rows <= height and 1 <= columns <= width):
        raise LabelError(
            f"a grid of {rows} x {columns} cells does not fit images of {height} x {width} pixels: "
            f"rows must be 1 to {height}, columns 1 to {width}"
        )
    row = torch.arange(height, device=images.device) * rows // height
    column = torch.arange(width, device=images.device) * columns // width
    return row[:, None] * columns + column
