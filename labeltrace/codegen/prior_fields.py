"""Priors beside label fields: whose prior a new position carries once samples have moved.

The prior of an image is one distribution (contract, point 3). In a field of labels each position
has the prior of the image that it comes from, and a step that moves, repeats or mixes samples does
so to their priors as well: a label program gives the priors where every pixel of its label image
has the prior. Steps within an image change nothing then, so nearly all of them drop out: only
those that move samples are computed a second time, on priors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.fx import Node

from labeltrace import label_ops
from labeltrace.codegen.instructions import Instruction, Prior, instruction, reads_prior
from labeltrace.codegen.prior_nodes import PriorNodes, Run
from labeltrace.codegen.row_priors import (
    Dimension,
    Part,
    RowPriors,
    is_one,
    kept_dimensions,
    size_of,
)
from labeltrace.errors import LayoutError
from labeltrace.flow import (
    Aggregate,
    Attend,
    Average,
    Flip,
    Join,
    LabelField,
    LabelStep,
    LabelView,
    OneSourceStep,
    Pad,
    Repeat,
    Roll,
    SampleBoxes,
    Select,
    Slice,
    Take,
    Unfold,
    Write,
)
from labeltrace.layout import Size


class PriorFields:
    """The priors beside each label field that some step needs them for."""

    def __init__(self, run: Run, steps: Mapping[LabelField, LabelStep]) -> None:
        self._run = run
        self._nodes = PriorNodes(run)
        self._steps = steps
        self._known: dict[LabelField, RowPriors] = {}
        self._image: tuple[Node, Size] | None = None

    def register_image(self, field: LabelField, prior: Node, sizes: Sequence[Size]) -> None:
        """Enter the field of the label image and its prior (B, K)."""
        self._image = prior, sizes[0]
        dims = [(Part(size, dim == 0),) for dim, size in enumerate(sizes)]
        self._known[field] = RowPriors(prior, tuple(dims))

    def instruction(self, step: LabelStep) -> Instruction | LabelView:
        """What the label graph runs for a step; new positions carry the prior of their rows.

        Raises:
            LayoutError: the new positions are joined to rows of several images, one after another.
        """
        planned = instruction(step)
        if isinstance(planned, LabelView) or not reads_prior(step):
            return planned
        prior, dim = self._argument(step)
        settings = {"batch_dim": dim, **planned.settings} if dim else planned.settings
        return replace(planned, arguments=_with_prior(planned.arguments, prior), settings=settings)

    def _argument(self, step: LabelStep) -> tuple[Node, int]:
        """The prior that new positions of a step carry, and the dimension of its samples.

        It is (rows, K) with that dimension, or it has as many dimensions as the labels, and 0.
        """
        if isinstance(step, Write):
            return self._as_argument(self._written(step))
        priors = self._of_rows(step)
        several = [dim for dim in _extended_dims(step) if priors.varies(dim)]
        others = [d for d in range(len(priors.dims)) if priors.varies(d) and d not in several]
        if several and others:  # a row of several images
            priors = self._mean(priors, others, several)
        elif several:
            raise LayoutError(
                "constants are joined to an axis along which images follow one another: a new row "
                "belongs to no image, so it has no prior; leave it out of the model"
            )
        return self._as_argument(priors)

    def _as_argument(self, priors: RowPriors) -> tuple[Node, int]:
        dim = priors.only_dim()
        if dim is not None:
            return priors.node, dim
        return self._nodes.with_all_dims(priors, range(len(priors.dims))), 0

    def _mean(self, priors: RowPriors, others: Sequence[int], averaged: Sequence[int]) -> RowPriors:
        """The mean over dimensions along which priors differ, `others` being the rest of these."""
        priors = self._nodes.expanded(priors, averaged)
        node = self._nodes.in_order(priors, [*others, *averaged])
        node = self._run(Instruction(label_ops.aggregate, (node, len(averaged))))
        dims = (
            (Part(size_of(axis), False),) if dim in averaged else axis
            for dim, axis in enumerate(priors.dims)
        )
        return RowPriors(node, tuple(dims))

    # Rows.

    def _of_rows(self, step: LabelStep) -> RowPriors:
        """The priors of the rows that a step reads, over its dimensions."""
        if not isinstance(step, Join):
            assert isinstance(step, OneSourceStep)
            return self._of_view(step.source)
        pieces = [self._of_view(labels) for labels in step.labels]
        most = max(sum(part.varies for part in priors.parts) for priors in pieces)
        kept = [one for one in pieces if sum(part.varies for part in one.parts) == most]
        return self._averaged(kept, [1] * len(kept), leave_out=step.dim)

    def _of_view(self, labels: LabelView) -> RowPriors:
        """The priors beside labels with the dimensions that a step needs."""
        return self._nodes.arranged(self._of_field(labels.field), labels.arrangement)

    def _of_field(self, field: LabelField) -> RowPriors:
        if field not in self._known:
            self._known[field] = self._of_step(self._steps[field])
        return self._known[field]

    # Steps.

    def _of_step(self, step: LabelStep) -> RowPriors:
        match step:
            case Average():
                pieces = [self._of_view(labels) for labels in step.sources]
                return self._averaged(pieces, step.shares)
            case Join():
                return self._joined(step)
            case Write():
                return self._written(step)
        assert isinstance(step, OneSourceStep)  # all others
        return self._after(step, self._of_view(step.source))

    def _after(self, step: OneSourceStep, priors: RowPriors) -> RowPriors:
        """Priors after a step; one along whose dimensions they differ is computed on them."""
        kept = kept_dimensions(step)
        moved = [dim for dim in range(len(priors.dims)) if priors.varies(dim) and dim not in kept]
        sizes = step.field_sizes
        if not moved:
            sources = {place: dim for dim, place in kept.items()}
            found = [sources[place] for place in range(len(sizes)) if place in sources]
            node = self._nodes.in_order(priors, found)
            dims = [
                priors.dims[sources[place]] if place in sources else (Part(size, False),)
                for place, size in enumerate(sizes)
            ]
            return RowPriors(node, tuple(dims))
        several = [d for d in range(len(priors.dims)) if _varying_parts(priors.dims[d]) > 1]
        priors = self._nodes.expanded(priors, [*moved, *several])
        if isinstance(step, Aggregate):
            return self._aggregated(step, priors)
        if isinstance(step, SampleBoxes) and moved == [0]:
            node = self._run(Instruction(label_ops.prior_of_boxes, (priors.node, step.boxes)))
            return RowPriors(node, _varying_dims(sizes, [0]))
        smaller = _on_priors(step, [dim for dim in range(len(priors.dims)) if priors.varies(dim)])
        if smaller is not None and all(is_one(priors.dims[dim]) for dim in moved):
            planned = instruction(smaller)
            assert isinstance(planned, Instruction)
            node = self._run(replace(planned, arguments=(priors.node, *planned.arguments[1:])))
            return RowPriors(node, _moved_dims(step, priors, moved))
        return self._computed(step, priors)

    def _aggregated(self, step: Aggregate, priors: RowPriors) -> RowPriors:
        """The mean of the priors over the last dimensions, of those that differ along them."""
        kept = len(priors.dims) - step.count
        averaged = sum(priors.varies(dim) for dim in range(kept, len(priors.dims)))
        node = self._run(Instruction(label_ops.aggregate, (priors.node, averaged)))
        return RowPriors(node, priors.dims[:kept])

    def _computed(self, step: OneSourceStep, priors: RowPriors) -> RowPriors:
        """The step itself, on priors at every position."""
        same = [place for dim, place in kept_dimensions(step).items() if not priors.varies(dim)]
        priors = self._nodes.expanded(priors, range(len(priors.dims)), always=True)
        step = replace(step, joint=False) if isinstance(step, Attend) else step
        planned = self.instruction(step)
        assert isinstance(planned, Instruction)
        node = self._run(replace(planned, arguments=(priors.node, *planned.arguments[1:])))
        for place in sorted(same, reverse=True):  # along it the priors are equal
            node = self._run(Instruction(label_ops.select, (node, place, 0)))
        dims = [(Part(size, place not in same),) for place, size in enumerate(step.field_sizes)]
        return RowPriors(node, tuple(dims))

    def _joined(self, step: Join) -> RowPriors:
        pieces = [self._of_view(labels) for labels in step.labels]
        sizes = step.field_sizes
        if len(set(pieces)) == 1 or _differ_by_size_alone(pieces, step.dim):
            same = pieces[0]
            if not same.varies(step.dim):
                dims = (
                    axis if same.varies(dim) else (Part(sizes[dim], False),)
                    for dim, axis in enumerate(same.dims)
                )
                return RowPriors(same.node, tuple(dims))
        added = self._of_rows(step) if None in step.pieces else None
        read = iter(pieces)
        rows = [next(read) if piece is not None else added for piece in step.pieces]
        known = [one for one in rows if one is not None]
        varying = sorted(
            {step.dim, *(d for one in known for d in range(len(one.dims)) if one.varies(d))}
        )
        nodes = [self._nodes.with_all_dims(one, varying) for one in known]
        counts = [
            -1 if one.varies(step.dim) else _size_along(step, index)
            for index, one in enumerate(known)
        ]
        arguments = (nodes, counts, varying.index(step.dim))
        node = self._run(Instruction(label_ops.join, arguments))
        return RowPriors(node, _varying_dims(sizes, varying))

    def _averaged(
        self, pieces: Sequence[RowPriors], shares: Sequence[Size], leave_out: int | None = None
    ) -> RowPriors:
        """The average of priors; themselves if all are the same."""
        if len(set(pieces)) == 1 or _differ_by_size_alone(pieces, leave_out):
            every = [[one.dims[dim] for one in pieces] for dim in range(len(pieces[0].dims))]
            whole = (max(dims, key=lambda dim: size_of(dim) != 1) for dims in every)
            return RowPriors(pieces[0].node, tuple(whole))
        rank = len(pieces[0].dims)
        varying = [dim for dim in range(rank) if any(one.varies(dim) for one in pieces)]
        nodes = [self._nodes.with_all_dims(one, varying) for one in pieces]
        share = {"shares": list(shares)} if len(set(shares)) > 1 else {}
        node = self._run(Instruction(label_ops.average, (nodes,), share))
        sizes = [_largest([size_of(one.dims[dim]) for one in pieces]) for dim in range(rank)]
        return RowPriors(node, _varying_dims(sizes, varying))

    def _written(self, step: Write) -> RowPriors:
        """Priors after a write: those of what stands at each place.

        Constants that are written over others leave them.
        """
        pieces = [
            (self._of_view(labels), part.dims)
            for labels, part in zip(step.pieces, step.elements, strict=True)
            if labels is not None
        ]
        sizes = step.field_sizes
        rows = [_rows_kept(priors, dims) for priors, dims in pieces]
        nodes = {priors.node for priors, _ in pieces}
        if len(nodes) == 1 and rows[0] is not None and all(one == rows[0] for one in rows):
            kept = rows[0]
            dims = [kept.get(dim, (Part(size, False),)) for dim, size in enumerate(sizes)]
            return RowPriors(pieces[0][0].node, tuple(dims))
        return self._computed_write(step, pieces)

    def _computed_write(
        self, step: Write, pieces: Sequence[tuple[RowPriors, tuple[int, ...]]]
    ) -> RowPriors:
        """The write itself, on priors at every position."""
        sizes = step.field_sizes
        planned = instruction(_without_constants(step))
        assert isinstance(planned, Instruction)
        every = [
            self._nodes.expanded(one, range(len(one.dims)), always=True).node for one, _ in pieces
        ]
        settings = dict(planned.settings)
        prior: Node | None = None
        if step.pieces[0] is None:
            every = [None, *every]  # type: ignore[list-item]
            assert self._image is not None
            if step.batch is not None or self._image[1] == 1:
                prior = self._image[0]
                settings["batch_dim"] = step.batch or 0
        node = self._run(
            replace(planned, arguments=(every, prior, *planned.arguments[2:]), settings=settings)
        )
        if step.pieces[0] is None and step.batch is not None:
            varying = {
                dims[at] for one, dims in pieces for at in range(len(dims)) if one.varies(at)
            }
            if varying <= {step.batch}:  # a canvas: each sample has the prior of what is on it
                return self._of_samples(node, step.batch, sizes)
        same = [
            dim
            for dim, size in enumerate(sizes)
            if size != 0 and all(_is_row_without_prior(one, dims, dim) for one, dims in pieces)
        ]
        for dim in sorted(same, reverse=True):
            node = self._run(Instruction(label_ops.select, (node, dim, 0)))
        return RowPriors(node, tuple((Part(size, d not in same),) for d, size in enumerate(sizes)))

    def _of_samples(self, node: Node, batch: int, sizes: Sequence[Size]) -> RowPriors:
        """The mean of priors over all dimensions but that of the samples."""
        if len(sizes) > 1:
            if batch != 0:
                order = [batch, *(dim for dim in range(len(sizes)) if dim != batch)]
                node = self._nodes.relayout(node, order=order)
            node = self._run(Instruction(label_ops.aggregate, (node, len(sizes) - 1)))
        return RowPriors(node, _varying_dims(sizes, [batch]))


def _rows_kept(priors: RowPriors, dims: Sequence[int]) -> dict[int, Dimension] | None:
    """The dimensions of a new field that priors differ along; None where these rows move."""
    found = {dims[place]: dim for place, dim in enumerate(priors.dims) if priors.varies(place)}
    in_order = list(found) == sorted(found)
    return found if in_order and -1 not in found else None


def _is_row_without_prior(priors: RowPriors, dims: Sequence[int], dim: int) -> bool:
    """Whether what is written keeps the indices of a dimension, and has one prior along it."""
    return dim in dims and not priors.varies(list(dims).index(dim))


def _without_constants(step: Write) -> Write:
    """The write of what comes from the image."""
    chosen = [index for index, piece in enumerate(step.pieces[1:]) if piece is not None]
    return replace(
        step,
        pieces=(step.pieces[0], *(step.pieces[index + 1] for index in chosen)),
        elements=(step.elements[0], *(step.elements[index + 1] for index in chosen)),
        places=tuple(step.places[index] for index in chosen),
        adds=tuple(step.adds[index] for index in chosen),
        keeps=tuple(step.keeps[index] for index in chosen),
    )


def _varying_parts(dim: Dimension) -> int:
    return sum(part.varies for part in dim)


def _with_prior(arguments: Any, prior: Node) -> Any:
    """Arguments with the prior in its place, also in lists."""
    if isinstance(arguments, (list, tuple)):
        return type(arguments)(_with_prior(argument, prior) for argument in arguments)
    return prior if isinstance(arguments, Prior) else arguments


def _largest(sizes: Sequence[Size]) -> Size:
    """The size of a dimension to which others of size one are broadcast."""
    return next((size for size in sizes if size != 1), 1)


def _varying_dims(sizes: Sequence[Size], varying: Sequence[int]) -> tuple[Dimension, ...]:
    return tuple((Part(size, dim in varying),) for dim, size in enumerate(sizes))


def _differ_by_size_alone(pieces: Sequence[RowPriors], dim: int | None) -> bool:
    """Whether priors are the same, except for the size of dimensions along which none differs."""
    nodes = {one.node for one in pieces}
    places = {tuple(tuple(p for p in axis if p.varies) for axis in one.dims) for one in pieces}
    return len(nodes) == 1 and len(places) == 1 and (dim is None or not pieces[0].varies(dim))


def _extended_dims(step: LabelStep) -> list[int]:
    """The dimensions along which a step adds positions that carry the prior."""
    if isinstance(step, Join):
        return [step.dim]
    if isinstance(step, Unfold):
        windows = zip(step.dims, step.windows, strict=True)
        return [dim for dim, window in windows if window.is_padded]
    if isinstance(step, Pad):
        return [d for d, (before, after) in enumerate(step.widths) if before > 0 or after > 0]
    return []


def _on_priors(step: OneSourceStep, dims: Sequence[int]) -> OneSourceStep | None:
    """A step that moves samples as a step on priors with these dimensions only; None for others."""
    place = {dim: index for index, dim in enumerate(dims)}
    match step:
        case Slice() | Select() | Take():
            return replace(step, dim=place[step.dim])
        case Roll():
            moved = [(s, d) for s, d in zip(step.shifts, step.dims, strict=True) if d in place]
            return replace(
                step, shifts=tuple(s for s, _ in moved), dims=tuple(place[d] for _, d in moved)
            )
        case Flip():
            return replace(step, dims=tuple(place[dim] for dim in step.dims if dim in place))
        case Repeat():
            return replace(step, counts=tuple(step.counts[dim] for dim in dims))
        case Pad() if step.mode != "prior":
            return replace(step, widths=tuple(step.widths[dim] for dim in dims))
    return None


def _moved_dims(
    step: OneSourceStep, priors: RowPriors, moved: Sequence[int]
) -> tuple[Dimension, ...]:
    """The parts of each dimension after a step that moves samples along `moved`."""
    places = {place: dim for dim, place in kept_dimensions(step).items()}
    dims: list[Dimension] = []
    for place, size in enumerate(step.field_sizes):
        if place in places:
            dims.append(priors.dims[places[place]])
        else:
            dims.append((Part(size, place in moved),))
    return tuple(dims)


def _size_along(step: Join, index: int) -> Size:
    """The size of the piece with this index along the dimension of a concatenation."""
    size = step.sizes[index]
    piece = step.pieces[index]
    return piece.arrangement.shape[step.dim] if size == -1 and piece is not None else size
