"""The label maps of a report: one for each label field of a node."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from labeltrace.errors import LayoutError
from labeltrace.flow import LabelField
from labeltrace.inspection.observer import NodeLabels, Observer
from labeltrace.inspection.places import Place, token_layout
from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.report.encoding import encode, to_levels
from labeltrace.report.schema import LabelMap

MAP_BYTES = 2 * 2**20
"""Memory limit for all maps together, before compression."""
MAP_SIDES = (56, 28, 14, 7)
MAX_OTHERS = 4
"""Number of tokens without a position in the image whose data is stored."""


def places_with_images(places: tuple[Place, ...]) -> dict[str, Place]:
    """The places, by node, where each image of the batch has its own labels."""
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
        places: the places, by node; places with the same field share a map.
    """
    firsts: dict[LabelField, Place] = {}
    for place in places.values():
        firsts.setdefault(place.field, place)
    found = observer.labels(images, labels, {place.node: place for place in firsts.values()})
    sizes = [labeled.grid.shape for labeled in found.values() if labeled.grid]
    side = next(
        (side for side in MAP_SIDES if _total_bytes(sizes, side) <= MAP_BYTES), MAP_SIDES[-1]
    )
    return {labeled.place.field: _label_map(labeled, side) for labeled in found.values()}


def fit_within(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Rows and columns scaled down, in proportion, so that the larger number is at most `side`."""
    longest = max(shape)
    if longest <= side:
        return shape
    rows, columns = (max(1, round(size * side / longest)) for size in shape)
    return rows, columns


def tokens_without_position(grid: TokenGrid | None, count: int) -> list[int]:
    """The indices of the first few tokens without a position in the image."""
    placed = set(grid.index.flatten().tolist()) if grid else set()
    return [token for token in range(count) if token not in placed][:MAX_OTHERS]


def _total_bytes(sizes: list[tuple[int, int]], side: int) -> int:
    return sum(rows * columns for rows, columns in (fit_within(size, side) for size in sizes))


def _label_map(found: NodeLabels, side: int) -> LabelMap:
    second = found.labels[0, :, 1].float().cpu()
    count = len(second)
    rows, columns = found.grid.shape if found.grid else (0, 0)
    shares = None
    if found.grid is not None:
        grid = found.map()[:1, 1:].cpu()
        fitted = functional.adaptive_avg_pool2d(grid, fit_within((rows, columns), side))
        shares = encode(to_levels(fitted[0, 0]))
    return LabelMap(
        tokens=count,
        rows=rows,
        columns=columns,
        shares=shares,
        mean=round(float(second.mean()), 4),
        others=tuple(
            round(float(second[t]), 4) for t in tokens_without_position(found.grid, count)
        ),
        why="" if found.grid else _reason_for_no_map(count),
    )


def _reason_for_no_map(count: int) -> str:
    if count == 1:
        return (
            "The whole image is one vector here: its tokens were pooled, or a single token was "
            "selected, so there is no map."
        )
    return (
        f"These {count} positions are no places in the image any more: tokens were mixed into "
        "new positions of the layer, so there is no map."
    )
