"""Provenance: the share of every cell of the input in each token.

For a plain ViT this is attention rollout (Abnar and Zuidema, "Quantifying Attention Flow in
Transformers", ACL 2020), where the class token starts with an even share of all cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labeltrace.analysis.source_chunks import concatenate_sources, one_hot_image, source_chunks
from labeltrace.errors import LabelError
from labeltrace.inspection.observer import Observer, as_observer
from labeltrace.inspection.places import OUTPUT, Place, with_outputs_at
from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.progress import tracked


@dataclass(frozen=True, eq=False, slots=True)
class Provenance:
    """The shares of the input cells in the tokens of one place.

    Attributes:
        place: the node.
        shares: (B, N, h, w) float32: the share of each of the h x w cells of the input in each of
            the N tokens; the shares of a token sum to one.
        grid: the positions of the tokens in the image; None if they form no map.
    """

    place: Place
    shares: Tensor
    grid: TokenGrid | None

    def token(self, row: int, column: int) -> Tensor:
        """The shares (B, h, w) of the cells in the token at a row and column of the `grid`.

        Raises:
            LabelError: the tokens form no map, or the map has no such row and column.
        """
        if self.grid is None:
            raise LabelError(f"the tokens of {self.place.node} form no map; index shares instead")
        rows, columns = self.grid.shape
        if not (0 <= row < rows and 0 <= column < columns):
            raise LabelError(
                f"there is no token ({row}, {column}) at {self.place.node}; choose a row below "
                f"{rows} and a column below {columns}"
            )
        return self.shares[:, int(self.grid.index[row, column])]


def provenance(
    model: nn.Module | Observer,
    images: Tensor,
    grid: tuple[int, int],
    at: Sequence[str] = (OUTPUT,),
) -> dict[str, Provenance]:
    """The share of every input cell in each output token, or in the tokens of any other node.

    The cells are the sources of the label graph. They are processed in chunks of
    `labeltrace.analysis.source_chunks.CHUNK_BYTES`, so memory does not grow with their number.

    Args:
        model: the model, or an `labeltrace.Observer` of it.
        images: (B, C, H, W).
        grid: rows and columns of cells; a pixel belongs to the cell that contains its upper left
            corner.
        at: names of nodes, paths of modules, patterns of paths or `"output"`; see
            `labeltrace.inspection.places.find_places`.

    Returns:
        The provenance of each place by name, in the order of `at`.

    Raises:
        LabelError: the grid has no cells, or more cells than pixels; there is no such node.
        LabelTraceError: the model cannot be captured or traced.

    Examples:
        >>> import torch
        >>> from labeltrace import provenance
        >>> model = torch.nn.Conv2d(3, 8, 4, stride=4)
        >>> found = provenance(model, torch.rand(1, 3, 8, 8), grid=(2, 2))["output"]
        >>> found.token(0, 1)  # the patch above on the right consists of that cell only
        tensor([[[0., 1.],
                 [0., 0.]]])
    """
    cells = pixel_cells(grid, images)
    observer = as_observer(model, images)
    observer.check_images(images)
    places = observer.find_places(at)
    program = observer.program(with_outputs_at(observer.trace, places.values()))
    parts: list[tuple[Tensor, ...]] = []
    runs = source_chunks(len(images), cells.shape, grid[0] * grid[1])
    for run in tracked(runs, "provenance"):
        image = one_hot_image(cells, run, len(images))
        parts.append(observer.run_program(program, images, image))
    grids = observer.grids(images, places)
    return {
        name: Provenance(place, concatenate_sources(iter(fields)).unflatten(-1, grid), grids[name])
        for (name, place), fields in zip(places.items(), zip(*parts, strict=True), strict=True)
    }


def pixel_cells(grid: tuple[int, int], images: Tensor) -> Tensor:
    """The index of the cell, counted row by row, that each pixel belongs to: (H, W) int64.

    Raises:
        LabelError: the grid does not fit the images.
    """
    if not isinstance(images, Tensor) or images.dim() != 4:
        raise LabelError("images must be a tensor (B, C, H, W); stack single images first")
    height, width = images.shape[2:]
    rows, columns = grid
    if not (1 <= rows <= height and 1 <= columns <= width):
        raise LabelError(
            f"a grid of {rows} x {columns} cells does not fit images of {height} x {width} pixels: "
            f"choose 1 to {height} rows and 1 to {width} columns"
        )
    row = torch.arange(height, device=images.device) * rows // height
    column = torch.arange(width, device=images.device) * columns // width
    return row[:, None] * columns + column
