"""What single steps read: each mixing or aggregation by itself, from the tokens before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from rich.progress import Progress
from torch import Tensor

from labeltrace.analysis.source_chunks import one_hot_image, source_chunks
from labeltrace.errors import LayoutError
from labeltrace.flow import OneSourceStep
from labeltrace.inspection.observer import Observer
from labeltrace.inspection.places import Place, step_places, token_layout
from labeltrace.inspection.single_steps import isolate_steps, source_place, source_sizes
from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.report.encoding import packed
from labeltrace.report.label_maps import within
from labeltrace.report.sampling import Sample
from labeltrace.report.schema import Reach
from labeltrace.tracing.ablation import moves_labels
from labeltrace.tracing.walk import LabelField, Trace

CELL_SIDE = 56
"""Rows and columns of cells that entering tokens are told apart by; larger grids are pooled."""
LEAST = 1e-9
"""Smaller shares are zero: what a mask of -100 leaves of a softmax is 4e-44."""
CODES = 2**40
"""Codes of tokens are below it, so that sums of thousands of them are exact in float64."""


def moving_steps(trace: Trace) -> dict[LabelField, Place]:
    """The steps that mix or aggregate the tokens of one stream, with the places of their results.

    Left out are those at which the images of a batch cannot be told apart.
    """
    found = {}
    for field, step in trace.steps.items():
        if not isinstance(step, OneSourceStep) or not moves_labels(step):
            continue
        try:
            source_sizes(trace, field)
            (place,) = step_places(trace, [field])
            token_layout(place.layout)
        except LayoutError:
            continue
        found[field] = place
    return found


def reaches(
    observer: Observer,
    images: Tensor,
    steps: Mapping[LabelField, Place],
    side: int,
    progress: Progress,
) -> dict[LabelField, Reach]:
    """What each step reads, of those whose entering tokens form a map.

    Args:
        observer: the model.
        images: (1, C, H, W).
        steps: of `moving_steps`.
        side: how many rows and columns of tokens are kept of a step.
        progress: shows how far it is.
    """
    before = {field.node: source_place(observer.trace, field) for field in steps}
    entering = observer.grids(images, before)
    after = observer.grids(images, {field.node: place for field, place in steps.items()})
    groups: dict[tuple[object, ...], list[LabelField]] = {}
    for field in steps:
        grid = entering[field.node]
        if grid is not None:
            sizes = source_sizes(observer.trace, field)
            order = grid.index.numpy().tobytes()
            groups.setdefault((sizes, grid.shape, order), []).append(field)
    found: dict[LabelField, Reach] = {}
    for group in progress.track(list(groups.values()), description="what each step reads"):
        grid = entering[group[0].node]
        assert grid is not None
        found |= _group(observer, images, group, grid, after, side)
    return found


def _group(
    observer: Observer,
    images: Tensor,
    fields: Sequence[LabelField],
    grid: TokenGrid,
    after: Mapping[str, TokenGrid | None],
    side: int,
) -> dict[LabelField, Reach]:
    """Steps that read tokens of the same grid."""
    trace = observer.trace
    sizes = source_sizes(trace, fields[0])
    cells = within(grid.shape, CELL_SIDE)
    cell = _cells(grid, cells, prod(sizes)).reshape(sizes)
    program = observer.program(isolate_steps(trace, fields))
    readings = [_Reading(after[field.node], side) for field in fields]
    codes = _codes(prod(cells))
    for run in source_chunks(len(images), (*sizes, len(fields)), prod(cells)):
        image = one_hot_image(cell, run, len(images))
        for reading, labels in zip(
            readings, observer.run_program(program, images, image), strict=True
        ):
            reading.add(labels[0, :, :-1].cpu(), codes[run.start : run.stop])
    exact = cells == grid.shape
    return {
        field: reading.reach(cells, prod(sizes), exact)
        for field, reading in zip(fields, readings, strict=True)
    }


class _Reading:
    """One step while its chunks come in."""

    def __init__(self, grid: TokenGrid | None, side: int) -> None:
        self.grid = grid
        self.side = side
        self.sample: Sample | None = None
        self.parts: list[Tensor] = []
        self.sets: list[Tensor] = []
        self.counts: list[Tensor] = []
        self.times: list[Tensor] = []
        self.readers: list[Tensor] = []

    def add(self, shares: Tensor, codes: Tensor) -> None:
        """Take in the shares (N, some cells) and the codes of those cells."""
        if self.sample is None:
            self.sample = Sample.of(self.grid, len(shares), self.side)
        self.parts.append(shares[self.sample.index])
        read = (shares > LEAST).double()
        self.counts.append(read.sum(1))
        self.times.append(read.sum(0))
        self.readers.append(read.argmax(0))
        self.sets.append(read @ codes)

    def reach(self, cells: tuple[int, int], entering: int, exact: bool) -> Reach:
        """What the step reads."""
        assert self.sample is not None
        shares = torch.cat(self.parts, 1).unflatten(1, cells)
        counts, sets = sum(self.counts), sum(self.sets)
        assert isinstance(counts, Tensor) and isinstance(sets, Tensor)
        windows = self._windows(counts, sets, cells) if exact else None
        tiles = self._tiles(cells) if windows is None else None
        groups = tiles if windows is None else windows
        return Reach(
            sources=self.sample.sources(shares),
            read=(int(counts.min()), int(counts.max())) if exact else None,
            entering=entering,
            groups=None if groups is None else packed((groups % 256).byte()),
            windows=0 if windows is None else int(windows.max()) + 1,
            tiles=0 if tiles is None else int(tiles.max()) + 1,
        )

    def _tiles(self, cells: tuple[int, int]) -> Tensor | None:
        """Which token each cell becomes a part of; None where cells are read by several or none."""
        tiles = torch.cat(self.readers).reshape(cells)
        once = bool((torch.cat(self.times) == 1).all())
        return tiles if once and 0 < int(tiles.max()) < tiles.numel() - 1 else None

    def _windows(self, counts: Tensor, sets: Tensor, cells: tuple[int, int]) -> Tensor | None:
        """Which window each token is in, (rows, columns); None where tokens are in no windows.

        In windows, tokens stay as many as they are and each reads all of the window it is in.
        """
        if self.grid is None or self.grid.shape != cells or counts.max() < 2:
            return None
        codes = sets[self.grid.index].flatten()
        _, groups, members = codes.unique(return_inverse=True, return_counts=True)
        whole = counts[self.grid.index].flatten() == members[groups]
        return groups.reshape(cells) if bool(whole.all()) and len(members) > 1 else None


def _cells(grid: TokenGrid, cells: tuple[int, int], count: int) -> Tensor:
    """The cell of each of `count` tokens; those without a place are in none."""
    rows, columns = grid.shape
    row = torch.arange(rows) * cells[0] // rows
    column = torch.arange(columns) * cells[1] // columns
    found = torch.full((count,), prod(cells), dtype=torch.int64)
    found[grid.index] = row[:, None] * cells[1] + column
    return found


def _codes(count: int) -> Tensor:
    """A random whole number for each token, so that sums tell sets of them apart: float64."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(CODES, (count,), generator=generator).double()
