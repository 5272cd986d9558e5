"""Priors beside label fields: whose prior a new position carries once samples have moved.

The prior of an image is one distribution (contract, point 3). In a field of labels each position
has the prior of the image that it comes from, and a step that moves, repeats or mixes samples does
so to their priors as well: a label program gives the priors where every pixel of its label image
has the prior. Steps within an image change nothing then, so nearly all of them drop out: only
those that move samples are computed a second time, on priors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.fx import Node

from labeltrace import label_ops
from labeltrace.codegen.instructions import Instruction, Prior, instruction, reads_prior
from labeltrace.codegen.label_calls import LabelCalls
from labeltrace.codegen.row_priors import (
    Dimension,
    Part,
    RowPriors,
    cut_parts,
    kept_dimensions,
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
from labeltrace.layout import Size, is_dynamic

Run = Callable[[Instruction], Node]
"""Adds an instruction to the graph; its arguments may be nodes as well."""


class PriorFields:
    """The priors beside each label field that some step needs them for."""

    def __init__(self, calls: LabelCalls, run: Run, steps: Mapping[LabelField, LabelStep]) -> None:
        self._calls = calls
        self._run = run
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
        moved = _extended_dims(step)
        if any(priors.varies(dim) for dim in moved):
            raise LayoutError(
                "constants are joined to an axis along which images follow one another: a new row "
                "belongs to no image, so it has no prior; leave it out of the model"
            )
        return self._as_argument(priors)

    def _as_argument(self, priors: RowPriors) -> tuple[Node, int]:
        dim = priors.only_dim()
        if dim is not None:
            return priors.node, dim
        return self._with_all_dims(priors, range(len(priors.dims))), 0

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
        priors = self._of_field(labels.field)
        arrangement = labels.arrangement
        cut = cut_parts(priors.parts, arrangement.sizes)
        if cut is None:  # a dimension is cut where images and copies do not end
            priors = self._expanded(priors, range(len(priors.dims)))
            cut = cut_parts(priors.parts, arrangement.sizes)
            assert cut is not None
        node = self._split(priors, [part for dim in cut for part in dim])
        dims = tuple(
            tuple(part for index in group for part in cut[index]) for group in arrangement.groups
        )
        places = [(index, number) for index, dim in enumerate(cut) for number, _ in enumerate(dim)]
        varying = [place for place in places if cut[place[0]][place[1]].varies]
        wanted = [
            (index, number)
            for group in arrangement.groups
            for index in group
            for number, part in enumerate(cut[index])
            if part.varies
        ]
        order = [varying.index(place) for place in wanted]
        if order != sorted(order):
            node = self._relayout(node, order=order)
        return self._without_copies(RowPriors(node, dims))

    def _without_copies(self, priors: RowPriors) -> RowPriors:
        """A dimension of copies of a single sample has one prior."""
        copies = [
            dim
            for dim in range(len(priors.dims))
            if priors.varies(dim)
            and _size(priors.dims[dim]) != 1
            and all(part.size == 1 for part in priors.dims[dim] if part.varies)
        ]
        if not copies:
            return priors
        kept = [
            part.size
            for index, dim in enumerate(priors.dims)
            for part in dim
            if part.varies and index not in copies
        ]
        dims = [
            (Part(_size(dim), False),) if index in copies else dim
            for index, dim in enumerate(priors.dims)
        ]
        return RowPriors(self._relayout(priors.node, merge=kept), tuple(dims))

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
            node = self._in_order(priors, found)
            dims = [
                priors.dims[sources[place]] if place in sources else (Part(size, False),)
                for place, size in enumerate(sizes)
            ]
            return RowPriors(node, tuple(dims))
        several = [d for d in range(len(priors.dims)) if _varying_parts(priors.dims[d]) > 1]
        priors = self._expanded(priors, [*moved, *several])
        if isinstance(step, Aggregate):
            return self._aggregated(step, priors)
        if isinstance(step, SampleBoxes) and moved == [0]:
            node = self._run(Instruction(label_ops.prior_of_boxes, (priors.node, step.boxes)))
            return RowPriors(node, _varying_dims(sizes, [0]))
        smaller = _on_priors(step, [dim for dim in range(len(priors.dims)) if priors.varies(dim)])
        if smaller is not None and all(_is_one(priors.dims[dim]) for dim in moved):
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
        priors = self._expanded(priors, range(len(priors.dims)), always=True)
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
                size = sizes[step.dim]
                dims = [*same.dims]
                dims[step.dim] = (Part(size, False),)
                return RowPriors(same.node, tuple(dims))
        added = self._of_rows(step) if None in step.pieces else None
        read = iter(pieces)
        rows = [next(read) if piece is not None else added for piece in step.pieces]
        known = [one for one in rows if one is not None]
        varying = sorted(
            {step.dim, *(d for one in known for d in range(len(one.dims)) if one.varies(d))}
        )
        nodes = [self._with_all_dims(one, varying) for one in known]
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
            whole = (max(dims, key=lambda dim: _size(dim) != 1) for dims in every)
            return RowPriors(pieces[0].node, tuple(whole))
        rank = len(pieces[0].dims)
        varying = [dim for dim in range(rank) if any(one.varies(dim) for one in pieces)]
        nodes = [self._with_all_dims(one, varying) for one in pieces]
        share = {"shares": list(shares)} if len(set(shares)) > 1 else {}
        node = self._run(Instruction(label_ops.average, (nodes,), share))
        sizes = [_largest([_size(one.dims[dim]) for one in pieces]) for dim in range(rank)]
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
        every = [self._expanded(one, range(len(one.dims)), always=True).node for one, _ in pieces]
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
                node = self._relayout(node, order=order)
            node = self._run(Instruction(label_ops.aggregate, (node, len(sizes) - 1)))
        return RowPriors(node, _varying_dims(sizes, [batch]))

    # Nodes.

    def _with_all_dims(self, priors: RowPriors, dims: Sequence[int]) -> Node:
        """The priors with a dimension for each of `dims`, of size one where they do not differ."""
        priors = self._expanded(priors, [dim for dim in dims if priors.varies(dim)])
        sizes = [_size(priors.dims[dim]) if priors.varies(dim) else 1 for dim in dims]
        if all(priors.varies(dim) for dim in dims):
            return priors.node
        return self._relayout(priors.node, merge=sizes)

    def _expanded(
        self, priors: RowPriors, dims: Sequence[int], *, always: bool = False
    ) -> RowPriors:
        """The priors with one part, which varies, for each of these dimensions that differ.

        With `always`, for all of these dimensions.
        """
        chosen = [dim for dim in dims if always or priors.varies(dim)]
        chosen = [dim for dim in chosen if not _is_one(priors.dims[dim])]
        if not chosen:
            return priors
        parts = [
            part
            for index, dim in enumerate(priors.dims)
            for part in dim
            if part.varies or index in chosen
        ]
        merged: list[Size] = []
        for index, dim in enumerate(priors.dims):
            if index in chosen:
                merged.append(_size(dim))
            else:
                merged.extend(part.size for part in dim if part.varies)
        node = priors.node
        if not all(part.varies for part in parts):
            split = [part.size if part.varies else 1 for part in parts]
            counts = [1 if part.varies else part.size for part in parts]
            node = self._relayout(node, split=split)
            if any(count != 1 for count in counts):
                node = self._run(Instruction(label_ops.repeat, (node, counts, False)))
        if merged != [part.size for part in parts]:
            node = self._relayout(node, merge=merged)
        expanded = [
            (Part(_size(dim), True),) if index in chosen else dim
            for index, dim in enumerate(priors.dims)
        ]
        return RowPriors(node, tuple(expanded))

    def _split(self, priors: RowPriors, parts: Sequence[Part]) -> Node:
        """The priors' node with a dimension for each of the finer parts that vary."""
        sizes = [part.size for part in parts if part.varies]
        if sizes == [part.size for part in priors.parts if part.varies]:
            return priors.node
        return self._relayout(priors.node, split=sizes)

    def _in_order(self, priors: RowPriors, dims: Sequence[int]) -> Node:
        """The priors' node, with the dimensions of the field in this order."""
        numbers: dict[int, list[int]] = {}
        count = 0
        for index, dim in enumerate(priors.dims):
            for part in dim:
                if part.varies:
                    numbers.setdefault(index, []).append(count)
                    count += 1
        order = [number for dim in dims for number in numbers.get(dim, ())]
        return priors.node if order == sorted(order) else self._relayout(priors.node, order=order)

    def _relayout(self, node: Node, **settings: Sequence[Size]) -> Node:
        """A call of `relayout`; torch infers the only size that depends on the batch."""
        shown: dict[str, Any] = {}
        for name, sizes in settings.items():
            inferred = sum(map(is_dynamic, sizes)) == 1
            shown[name] = [-1 if inferred and is_dynamic(size) else size for size in sizes]
        return self._run(Instruction(label_ops.relayout, (node,), shown))


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


def _is_one(dim: Dimension) -> bool:
    """Whether a dimension is a single part that varies."""
    return len(dim) == 1 and dim[0].varies


def _varying_parts(dim: Dimension) -> int:
    return sum(part.varies for part in dim)


def _with_prior(arguments: Any, prior: Node) -> Any:
    """Arguments with the prior in its place, also in lists."""
    if isinstance(arguments, (list, tuple)):
        return type(arguments)(_with_prior(argument, prior) for argument in arguments)
    return prior if isinstance(arguments, Prior) else arguments


def _size(dim: Dimension) -> Size:
    size: Size = 1
    for part in dim:
        size *= part.size
    return size


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
