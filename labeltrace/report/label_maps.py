"""The label maps of a report: one for each label field that some node carries."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from labeltrace.errors import LayoutError
from labeltrace.inspection.observer import NodeLabels, Observer
from labeltrace.inspection.places import Place, token_layout
from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.report.encoding import in_levels, packed
from labeltrace.report.schema import LabelMap
from labeltrace.tracing.walk import LabelField

MAP_BYTES = 2 * 2**20
"""What all maps together may take, deflated or not."""
MAP_SIDES = (56, 28, 14, 7)
OTHERS = 4
"""Of how many tokens without a place in the image data is kept."""


def separable(places: tuple[Place, ...]) -> dict[str, Place]:
    """The places, by node, at which the images of a batch can be told apart."""
    found = {}
    for place in places:
        try:
            token_layout(place.layout)
        except LayoutError:
            continue
        found[place.node] = place
    return found


def label_maps(
    observer: Observer, images: Tensor, labels: Tensor, places: Mapping[str, Place]
) -> dict[LabelField, LabelMap]:
    """The label map of each field, in the order of the places.

    Args:
        observer: the model.
        images: (1, C, H, W).
        labels: (1, 2, H, W).
        places: by node; places with one field share a map.
    """
    firsts: dict[LabelField, Place] = {}
    for place in places.values():
        firsts.setdefault(place.field, place)
    found = observer.labels(images, labels, {place.node: place for place in firsts.values()})
    sizes = [labelled.grid.shape for labelled in found.values() if labelled.grid]
    side = next((side for side in MAP_SIDES if _bytes(sizes, side) <= MAP_BYTES), MAP_SIDES[-1])
    return {labelled.place.field: _label_map(labelled, side) for labelled in found.values()}


def within(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Rows and columns, at most `side` of them the longer way, in the same proportion."""
    longest = max(shape)
    if longest <= side:
        return shape
    rows, columns = (max(1, round(size * side / longest)) for size in shape)
    return rows, columns


def others_of(grid: TokenGrid | None, count: int) -> list[int]:
    """The first few tokens that have no place in the image, by their index."""
    placed = set(grid.index.flatten().tolist()) if grid else set()
    return [token for token in range(count) if token not in placed][:OTHERS]


def _bytes(sizes: list[tuple[int, int]], side: int) -> int:
    return sum(rows * columns for rows, columns in (within(size, side) for size in sizes))


def _label_map(found: NodeLabels, side: int) -> LabelMap:
    second = found.labels[0, :, 1].float().cpu()
    count = len(second)
    rows, columns = found.grid.shape if found.grid else (0, 0)
    shares = None
    if found.grid is not None:
        grid = found.map()[:1, 1:].cpu()
        fitted = functional.adaptive_avg_pool2d(grid, within((rows, columns), side))
        shares = packed(in_levels(fitted[0, 0]))
    return LabelMap(
        tokens=count,
        rows=rows,
        columns=columns,
        shares=shares,
        mean=round(float(second.mean()), 4),
        others=tuple(round(float(second[t]), 4) for t in others_of(found.grid, count)),
        why="" if found.grid else _no_map(count),
    )


def _no_map(count: int) -> str:
    if count == 1:
        return (
            "The whole image is one vector here: its tokens were pooled, or a single token was "
            "picked, so there is no map."
        )
    return (
        f"These {count} positions are no places in the image any more: they were mixed into "
        "positions of the layer's own, so there is no map."
    )
