"""Receptive fields of single steps: the tokens that each mixing or aggregation reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from rich.progress import Progress
from torch import Tensor

from labeltrace.analysis.source_chunks import one_hot_image, source_chunks
from labeltrace.errors import LayoutError
from labeltrace.flow import LabelField, OneSourceStep
from labeltrace.inspection.observer import Observer
from labeltrace.inspection.places import Place, step_places, token_layout
from labeltrace.inspection.single_steps import isolate_steps, source_place, source_sizes
from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.report.encoding import encode
from labeltrace.report.label_maps import fit_within
from labeltrace.report.sampling import TokenSample
from labeltrace.report.schema import ReceptiveField
from labeltrace.tracing.ablation import moves_labels
from labeltrace.tracing.trace import Trace

CELL_SIDE = 56
"""The largest number of rows and columns of cells; larger grids of input tokens are pooled."""
MIN_SHARE = 1e-9
"""Smaller shares count as zero: a softmax under a mask of -100 gives 4e-44."""
MAX_CODE = 2**40
"""Upper limit for the codes of tokens: sums of thousands of codes are exact in float64."""


def find_moving_steps(trace: Trace) -> dict[LabelField, Place]:
    """The steps that mix or aggregate the tokens of one stream, with the places of their results.

    Steps that mix the images of a batch are omitted.
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


def measure_receptive_fields(
    observer: Observer,
    images: Tensor,
    steps: Mapping[LabelField, Place],
    side: int,
    progress: Progress,
) -> dict[LabelField, ReceptiveField]:
    """The receptive field of each step whose input tokens form a map.

    Args:
        observer: the model.
        images: (1, C, H, W).
        steps: the result of `find_moving_steps`.
        side: number of rows and columns of sampled tokens of a step.
        progress: shows the progress.
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
    found: dict[LabelField, ReceptiveField] = {}
    for group in progress.track(list(groups.values()), description="what each step reads"):
        grid = entering[group[0].node]
        assert grid is not None
        found |= _measure_group(observer, images, group, grid, after, side)
    return found


def _measure_group(
    observer: Observer,
    images: Tensor,
    fields: Sequence[LabelField],
    grid: TokenGrid,
    after: Mapping[str, TokenGrid | None],
    side: int,
) -> dict[LabelField, ReceptiveField]:
    """The receptive fields of steps that read tokens of the same grid."""
    trace = observer.trace
    sizes = source_sizes(trace, fields[0])
    cells = fit_within(grid.shape, CELL_SIDE)
    cell = _cell_of_tokens(grid, cells, prod(sizes)).reshape(sizes)
    program = observer.program(isolate_steps(trace, fields))
    readers = [_StepReader(after[field.node], side) for field in fields]
    codes = _random_codes(prod(cells))
    for run in source_chunks(len(images), (*sizes, len(fields)), prod(cells)):
        image = one_hot_image(cell, run, len(images))
        for reader, labels in zip(
            readers, observer.run_program(program, images, image), strict=True
        ):
            reader.add(labels[0, :, :-1].cpu(), codes[run.start : run.stop])
    exact = cells == grid.shape
    return {
        field: reader.receptive_field(cells, prod(sizes), exact)
        for field, reader in zip(fields, readers, strict=True)
    }


class _StepReader:
    """Accumulates the chunks of one step."""

    def __init__(self, grid: TokenGrid | None, side: int) -> None:
        self.grid = grid
        self.side = side
        self.sample: TokenSample | None = None
        self.parts: list[Tensor] = []
        self.sets: list[Tensor] = []
        self.counts: list[Tensor] = []
        self.times: list[Tensor] = []
        self.readers: list[Tensor] = []

    def add(self, shares: Tensor, codes: Tensor) -> None:
        """Add the shares (N, cells of a chunk) and the codes of these cells."""
        if self.sample is None:
            self.sample = TokenSample.draw(self.grid, len(shares), self.side)
        self.parts.append(shares[self.sample.index])
        read = (shares > MIN_SHARE).double()
        self.counts.append(read.sum(1))
        self.times.append(read.sum(0))
        self.readers.append(read.argmax(0))
        self.sets.append(read @ codes)

    def receptive_field(self, cells: tuple[int, int], entering: int, exact: bool) -> ReceptiveField:
        """The receptive field of the step."""
        assert self.sample is not None
        shares = torch.cat(self.parts, 1).unflatten(1, cells)
        counts, sets = sum(self.counts), sum(self.sets)
        assert isinstance(counts, Tensor) and isinstance(sets, Tensor)
        windows = self._windows(counts, sets, cells) if exact else None
        tiles = self._tiles(cells) if windows is None else None
        groups = tiles if windows is None else windows
        return ReceptiveField(
            sources=self.sample.sources(shares),
            read=(int(counts.min()), int(counts.max())) if exact else None,
            entering=entering,
            groups=None if groups is None else encode((groups % 256).byte()),
            windows=0 if windows is None else int(windows.max()) + 1,
            tiles=0 if tiles is None else int(tiles.max()) + 1,
        )

    def _tiles(self, cells: tuple[int, int]) -> Tensor | None:
        """The token that reads each cell; None unless every cell is read by exactly one token."""
        tiles = torch.cat(self.readers).reshape(cells)
        once = bool((torch.cat(self.times) == 1).all())
        return tiles if once and 0 < int(tiles.max()) < tiles.numel() - 1 else None

    def _windows(self, counts: Tensor, sets: Tensor, cells: tuple[int, int]) -> Tensor | None:
        """The window of each token, (rows, columns); None if tokens are in no windows.

        In windows, there are as many output tokens as input tokens, and each reads all tokens of
        its own window.
        """
        if self.grid is None or self.grid.shape != cells or counts.max() < 2:
            return None
        codes = sets[self.grid.index].flatten()
        _, groups, members = codes.unique(return_inverse=True, return_counts=True)
        whole = counts[self.grid.index].flatten() == members[groups]
        return groups.reshape(cells) if bool(whole.all()) and len(members) > 1 else None


def _cell_of_tokens(grid: TokenGrid, cells: tuple[int, int], count: int) -> Tensor:
    """The cell of each of `count` tokens; tokens without a position are in no cell."""
    rows, columns = grid.shape
    row = torch.arange(rows) * cells[0] // rows
    column = torch.arange(columns) * cells[1] // columns
    found = torch.full((count,), prod(cells), dtype=torch.int64)
    found[grid.index] = row[:, None] * cells[1] + column
    return found


def _random_codes(count: int) -> Tensor:
    """A random integer for each token, so that different sets have different sums: float64."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(MAX_CODE, (count,), generator=generator).double()
