"""The provenance of a sample of tokens: the shares of the image's cells in them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from rich.progress import Progress
from torch import Tensor

from labeltrace.analysis.input_provenance import pixel_cells
from labeltrace.analysis.source_chunks import concatenate_sources, one_hot_image, source_chunks
from labeltrace.inspection.observer import Observer
from labeltrace.inspection.places import Place, with_outputs_at
from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.report.sampling import TokenSample
from labeltrace.report.schema import Sources


def sample_provenance(
    observer: Observer,
    images: Tensor,
    places: Mapping[str, Place],
    grids: Mapping[str, TokenGrid | None],
    cells: tuple[int, int],
    side: int,
    progress: Progress,
) -> dict[str, Sources]:
    """The shares of the image's cells in a sample of the tokens of each place.

    Same as `labeltrace.analysis.provenance`, but only for a sample of the tokens.

    Args:
        observer: the model.
        images: (1, C, H, W).
        places: the places, by name.
        grids: the positions of their tokens, by the same names.
        cells: rows and columns of cells.
        side: number of rows and columns of sampled tokens of a place.
        progress: shows the progress.
    """
    program = observer.program(with_outputs_at(observer.trace, places.values()))
    samples: dict[str, TokenSample] = {}
    parts: dict[str, list[Tensor]] = {name: [] for name in places}
    cell = pixel_cells(cells, images)
    runs = source_chunks(len(images), cell.shape, cells[0] * cells[1])
    for run in progress.track(runs, description="where tokens came from"):
        image = one_hot_image(cell, run, len(images))
        for name, found in zip(places, observer.run_program(program, images, image), strict=True):
            if name not in samples:
                samples[name] = TokenSample.draw(grids[name], found.shape[1], side)
            kept = found[:1, samples[name].index.to(found.device)]
            parts[name].append(kept.to("cpu", torch.float32))
    return {
        name: samples[name].sources(concatenate_sources(iter(kept))[0].unflatten(-1, cells))
        for name, kept in parts.items()
    }
