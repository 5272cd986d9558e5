"""Gathering: all that a report shows of a model, from one capture of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from rich.progress import Progress
from torch import Tensor

from labeltrace.inspection.observer import Observer
from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.model_loading import LoadedModel
from labeltrace.photographs import Photograph, mix, normalise
from labeltrace.report.descriptions import OPERATIONS
from labeltrace.report.label_maps import label_maps, separable, within
from labeltrace.report.layers import Stop, stops
from labeltrace.report.module_tree import folding_of
from labeltrace.report.nodes import described, flow_nodes, numbers
from labeltrace.report.pictures import address, picture
from labeltrace.report.provenance_samples import origins
from labeltrace.report.receptive_fields import moving_steps, reaches
from labeltrace.report.schema import Layer, Picture, Report, Sources
from labeltrace.version import __version__

Key = TypeVar("Key")

TOKEN_SIDE = 14
"""Rows and columns of tokens of a place that a page can answer for, where there are few places."""
CELL_SIDE = 28
"""Rows and columns of cells that a page tells apart in the image, where there are few places."""
MANY = 48  # places; for each fourfold number the page has half the rows and columns
SMALLEST_SIDE = 4


def gather(
    name: str,
    loaded: LoadedModel,
    photographs: tuple[Photograph, Photograph],
    *,
    weights: str,
    progress: Progress,
) -> Report:
    """Follow two CutMix-ed photographs through a model, in eval mode.

    Args:
        name: what the model is called.
        loaded: the model.
        photographs: two images of the size that it takes.
        weights: one sentence on where its weights come from.
        progress: shows what is under way.

    Raises:
        LabelTraceError: the model cannot be captured or traced.
    """
    batch = mix(photographs)
    images = normalise(batch.images, loaded.mean, loaded.std)
    task = progress.add_task(f"tracing {name}", total=None)
    observer = Observer(loaded.model, images)
    trace = observer.trace
    progress.update(task, description="label maps")
    places = separable(observer.places())
    maps = label_maps(observer, images, batch.labels, places)
    progress.remove_task(task)
    folding = folding_of(trace, loaded.model, [node.module_path for node in flow_nodes(trace)])
    found_stops = stops(trace, folding, places)
    seen = {stop.node: places[stop.node] for stop in found_stops[1:]}
    grids = observer.grids(images, seen)
    cells = _cells(images, list(grids.values()))
    side = _side(TOKEN_SIDE, len(seen))
    sources = origins(observer, images, seen, grids, cells, side, progress)
    steps = moving_steps(trace)
    reached = reaches(observer, images, steps, _side(TOKEN_SIDE, len(steps)), progress)
    occurring = {node.operation for node in trace.nodes}
    return Report(
        model=name,
        version=__version__,
        weights=weights,
        height=images.shape[2],
        width=images.shape[3],
        mixed=Picture("the mixed image", address(batch.images[0])),
        photographs=(picture(photographs[0]), picture(photographs[1])),
        ratio=round(float(batch.mixing_ratio[0, 1]), 4),
        operations={str(key): words for key, words in OPERATIONS.items() if key in occurring},
        cells=cells,
        modules=folding.modules,
        nodes=tuple(described(trace, folding, places, _numbered(maps), _numbered(reached))),
        maps=tuple(maps.values()),
        layers=tuple(_layers(found_stops, numbers(trace), sources)),
        sources=tuple(sources.values()),
        reaches=tuple(reached.values()),
    )


def _layers(
    found: Sequence[Stop], index: Mapping[str, int], sources: Mapping[str, Sources]
) -> Iterator[Layer]:
    at = _numbered(sources)
    for stop in found:
        yield Layer(stop.title, index[stop.node], stop.module, at.get(stop.node))


def _numbered(found: Mapping[Key, object]) -> dict[Key, int]:
    return {key: index for index, key in enumerate(found)}


def _side(side: int, count: int) -> int:
    """How many rows and columns each of ``count`` places may have on the page."""
    while count > MANY and side > SMALLEST_SIDE:
        side, count = side // 2, count // 4
    return side


def _cells(images: Tensor, grids: Sequence[TokenGrid | None]) -> tuple[int, int]:
    """The cells of the image: as fine as the finest tokens, where that is not too many."""
    shapes = [grid.shape for grid in grids if grid is not None]
    height, width = images.shape[2:]
    finest = max(shapes, default=(height, width))
    return within(finest, min(_side(CELL_SIDE, len(grids)), height, width))
