"""Build a report of a model from one capture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from rich.progress import Progress
from torch import Tensor

from labeltrace.inspection.observer import Observer
from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.model_loading import LoadedModel
from labeltrace.photographs import Photograph, mix_photographs, normalize
from labeltrace.report.descriptions import OPERATIONS
from labeltrace.report.label_maps import fit_within, label_maps, places_with_images
from labeltrace.report.layers import Stop, find_stops
from labeltrace.report.module_tree import build_module_tree
from labeltrace.report.nodes import describe_nodes, flow_nodes, node_indices
from labeltrace.report.pictures import data_url, encode_photograph
from labeltrace.report.provenance_samples import sample_provenance
from labeltrace.report.receptive_fields import find_moving_steps, measure_receptive_fields
from labeltrace.report.schema import Layer, Picture, Report, Sources
from labeltrace.version import __version__

Key = TypeVar("Key")

TOKEN_SIDE = 14
"""Rows and columns of sampled tokens of a place, if there are few places."""
CELL_SIDE = 28
"""Rows and columns of cells in the image, if there are few places."""
MANY_PLACES = 48  # with four times as many places, the page has half the rows and columns
MIN_SIDE = 4


def build_report(
    name: str,
    loaded: LoadedModel,
    photographs: tuple[Photograph, Photograph],
    *,
    weights: str,
    progress: Progress,
) -> Report:
    """Follow two photographs, mixed by CutMix, through a model in eval mode.

    Args:
        name: name of the model.
        loaded: the model.
        photographs: two images of the model's input size.
        weights: one sentence about its weights.
        progress: shows the current stage.

    Raises:
        LabelTraceError: the model cannot be captured or traced.
    """
    batch = mix_photographs(photographs)
    images = normalize(batch.images, loaded.mean, loaded.std)
    task = progress.add_task(f"tracing {name}", total=None)
    observer = Observer(loaded.model, images)
    trace = observer.trace
    progress.update(task, description="label maps")
    places = places_with_images(observer.places())
    maps = label_maps(observer, images, batch.labels, places)
    progress.remove_task(task)
    tree = build_module_tree(trace, loaded.model, [node.module_path for node in flow_nodes(trace)])
    layer_stops = find_stops(trace, tree, places)
    stop_places = {stop.node: places[stop.node] for stop in layer_stops[1:]}
    grids = observer.grids(images, stop_places)
    cells = _cell_grid(images, list(grids.values()))
    side = _side_length(TOKEN_SIDE, len(stop_places))
    sources = sample_provenance(observer, images, stop_places, grids, cells, side, progress)
    steps = find_moving_steps(trace)
    receptive_fields = measure_receptive_fields(
        observer, images, steps, _side_length(TOKEN_SIDE, len(steps)), progress
    )
    operations = {node.operation for node in trace.nodes}
    return Report(
        model=name,
        version=__version__,
        weights=weights,
        height=images.shape[2],
        width=images.shape[3],
        mixed=Picture("the mixed image", data_url(batch.images[0])),
        photographs=(encode_photograph(photographs[0]), encode_photograph(photographs[1])),
        ratio=round(float(batch.mixing_ratio[0, 1]), 4),
        operations={str(key): words for key, words in OPERATIONS.items() if key in operations},
        cells=cells,
        modules=tree.modules,
        nodes=tuple(
            describe_nodes(trace, tree, places, _indices(maps), _indices(receptive_fields))
        ),
        maps=tuple(maps.values()),
        layers=tuple(_layers(layer_stops, node_indices(trace), sources)),
        sources=tuple(sources.values()),
        reaches=tuple(receptive_fields.values()),
    )


def _layers(
    found: Sequence[Stop], index: Mapping[str, int], sources: Mapping[str, Sources]
) -> Iterator[Layer]:
    at = _indices(sources)
    for stop in found:
        yield Layer(stop.title, index[stop.node], stop.module, at.get(stop.node))


def _indices(found: Mapping[Key, object]) -> dict[Key, int]:
    return {key: index for index, key in enumerate(found)}


def _side_length(side: int, count: int) -> int:
    """The number of rows and columns on the page for each of `count` places."""
    while count > MANY_PLACES and side > MIN_SIDE:
        side, count = side // 2, count // 4
    return side


def _cell_grid(images: Tensor, grids: Sequence[TokenGrid | None]) -> tuple[int, int]:
    """Rows and columns of cells in the image: those of the finest tokens, up to a limit."""
    shapes = [grid.shape for grid in grids if grid is not None]
    height, width = images.shape[2:]
    finest = max(shapes, default=(height, width))
    return fit_within(finest, min(_side_length(CELL_SIDE, len(grids)), height, width))
