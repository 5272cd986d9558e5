"""Token presence and fluctuation: eq. 2 and 3 of the paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from labeltrace.analysis.source_chunks import one_hot_image, source_chunks
from labeltrace.capture.module_paths import lies_in_named
from labeltrace.errors import LabelError
from labeltrace.flow import LabelField, OneSourceStep, Operation
from labeltrace.inspection.observer import Observer, as_observer
from labeltrace.inspection.places import Place, step_places
from labeltrace.inspection.single_steps import isolate_steps, source_place, source_sizes
from labeltrace.inspection.token_grid import TokenGrid
from labeltrace.progress import tracked


@dataclass(frozen=True, eq=False, slots=True)
class Presence:
    """How much of each input token is present in the output of one mixing step.

    Attributes:
        place: the step.
        values: (B, N) float32, eq. 2: the presence of each of the N input tokens, in units of
            output tokens. Their sum is the number of output tokens.
        even: the presence of each token if all had the same weight: output tokens / input tokens,
            which is 1 if their numbers are equal (eq. 3).
        grid: the positions of the input tokens in the image; None if they form no map.
    """

    place: Place
    values: Tensor
    even: float
    grid: TokenGrid | None

    @property
    def fluctuation(self) -> Tensor:
        """The deviation from an even presence: (B,), the RMS of `values / even - 1`.

        Zero if eq. 3 holds for every token.
        """
        return (self.values / self.even - 1).square().mean(1).sqrt()


def presence(
    model: nn.Module | Observer, images: Tensor, modules: Sequence[str] | None = None
) -> dict[str, Presence]:
    """Token presence in every spatial mixing step, eq. 2: `p(z_i) = sum_j |w_ij| / sum_k |w_kj|`.

    The weights are those of the alignment: several matrices (heads, channels of a kernel) are
    normalized one by one and averaged. The weights of a convolution are those inside the image, so
    tokens whose windows are completely inside have a presence of 1 (eq. 3).

    Args:
        model: the model, or an `labeltrace.Observer` of it.
        images: (B, C, H, W).
        modules: paths or patterns of the modules to measure (`"blocks.*"`); None for all.

    Returns:
        The presence in each step, in the order of the model, by the path of its module. If a module
        has several steps, the names are path and node.

    Raises:
        LabelError: there is no such step.
        LayoutError: a step mixes images of the batch.

    Examples:
        >>> import torch
        >>> from labeltrace.analysis import presence
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1))
        >>> found = presence(model, torch.rand(2, 3, 8, 8))["0"]
        >>> found.values.shape, found.even
        (torch.Size([2, 64]), 1.0)
    """
    observer = as_observer(model, images)
    observer.check_images(images)
    fields = _mixing_fields(observer, modules)
    sources = {field.node: source_place(observer.trace, field) for field in fields}
    grids = observer.grids(images, sources)
    groups: dict[tuple[int, ...], list[LabelField]] = {}
    for field in fields:
        groups.setdefault(source_sizes(observer.trace, field), []).append(field)
    values: dict[LabelField, tuple[Tensor, int]] = {}
    for sizes, group in tracked(groups.items(), "token presence", len(groups)):
        values |= _column_sums(observer, images, sizes, group)
    places = {field: place for field in fields for place in step_places(observer.trace, [field])}
    return {
        name: Presence(
            place=places[field],
            values=values[field][0],
            even=values[field][1] / values[field][0].shape[1],
            grid=grids[field.node],
        )
        for name, field in zip(_unique_names(list(places.values())), fields, strict=True)
    }


def _mixing_fields(observer: Observer, modules: Sequence[str] | None) -> list[LabelField]:
    trace = observer.trace
    mixing = [
        field
        for field, step in trace.steps.items()
        if step.operation is Operation.SPATIAL_MIXING and isinstance(step, OneSourceStep)
    ]
    chosen = [
        field
        for field in mixing
        if modules is None or any(lies_in_named(trace.module_paths[field.node], m) for m in modules)
    ]
    if not chosen:
        paths = dict.fromkeys(trace.module_paths[field.node] for field in mixing)
        known = ", ".join(path or "(the model itself)" for path in paths) or "no module"
        raise LabelError(
            f"no step in {', '.join(modules or ()) or 'the model'} mixes positions; such steps are "
            f"in {known}"
        )
    return chosen


def _column_sums(
    observer: Observer, images: Tensor, sizes: tuple[int, ...], fields: list[LabelField]
) -> dict[LabelField, tuple[Tensor, int]]:
    """Presence (B, N) and number of output tokens, for steps that read fields of equal sizes."""
    batch, count = len(images), prod(sizes)
    program = observer.program(isolate_steps(observer.trace, fields))
    source_of = torch.arange(count, device=images.device).reshape(sizes)
    sums: list[list[Tensor]] = [[] for _ in fields]
    outputs = [0] * len(fields)
    for run in source_chunks(batch, (*sizes, len(fields)), count):
        image = one_hot_image(source_of, run, batch)
        for index, labels in enumerate(observer.run_program(program, images, image)):
            sums[index].append(labels.sum(1)[:, :-1])
            outputs[index] = labels.shape[1]
    return {
        field: (torch.cat(parts, 1), number)
        for field, parts, number in zip(fields, sums, outputs, strict=True)
    }


def _unique_names(places: list[Place]) -> list[str]:
    counts = Counter(place.module_path for place in places)
    return [
        f"{place.module_path} ({place.node})"
        if counts[place.module_path] > 1
        else place.module_path
        for place in places
    ]
