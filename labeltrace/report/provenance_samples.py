"""Where the content of tokens came from, since the input: provenance of a sample of tokens."""

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
from labeltrace.report.sampling import Sample
from labeltrace.report.schema import Sources


def origins(
    observer: Observer,
    images: Tensor,
    places: Mapping[str, Place],
    grids: Mapping[str, TokenGrid | None],
    cells: tuple[int, int],
    side: int,
    progress: Progress,
) -> dict[str, Sources]:
    """The shares of the image's cells in tokens of each place.

    As `labeltrace.analysis.provenance`, of which a sample of tokens is kept.

    Args:
        observer: the model.
        images: (1, C, H, W).
        places: by name.
        grids: where their tokens lie, by the same names.
        cells: rows and columns.
        side: how many rows and columns of tokens are kept of a place.
        progress: shows how far it is.
    """
    program = observer.program(with_outputs_at(observer.trace, places.values()))
    samples: dict[str, Sample] = {}
    parts: dict[str, list[Tensor]] = {name: [] for name in places}
    cell = pixel_cells(cells, images)
    runs = source_chunks(len(images), cell.shape, cells[0] * cells[1])
    for run in progress.track(runs, description="where tokens came from"):
        image = one_hot_image(cell, run, len(images))
        for name, found in zip(places, observer.run_program(program, images, image), strict=True):
            if name not in samples:
                samples[name] = Sample.of(grids[name], found.shape[1], side)
            kept = found[:1, samples[name].index.to(found.device)]
            parts[name].append(kept.to("cpu", torch.float32))
    return {
        name: samples[name].sources(concatenate_sources(iter(kept))[0].unflatten(-1, cells))
        for name, kept in parts.items()
    }
