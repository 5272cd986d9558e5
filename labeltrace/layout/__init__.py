"""Layouts: what each axis of an activation is made of, and how views move it.

An axis is a sequence of *factors* (outermost first, row-major).  A factor is a **position**
(tokens, rows, columns, windows: the label varies along it), the **batch** (the one position that
the prior has as well), a **repeated** position (an expanded axis: positions that all have the same
label) or a **channel** (features, heads: no label of their own).

The label field of an activation is one tensor with a dimension per position factor and the K
sources last.  A position factor's ``field_dim`` says which dimension of the field it is.  Views and
permutations change the axes and leave the field alone, so that a label is relaid out only where a
step needs it in another order.

Everything here is immutable and made of plain integers.  A dynamic batch is stood in for by
``BATCH``, a prime larger than any size, so that a product of sizes still tells which factor is
the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import prod

from labeltrace.errors import LayoutError
from labeltrace.layout.sliding_window import SlidingWindow as SlidingWindow
from labeltrace.layout.sliding_window import sliding_windows as sliding_windows

BATCH = 2_147_483_647
"""The prime that stands in for a dynamic batch size."""


class Kind(Enum):
    """What a factor of an axis is (see the module's docstring)."""

    BATCH = "batch"
    POSITION = "position"
    CHANNEL = "channel"
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class Factor:
    """One factor of an axis: its size, its kind and, for a position, its dimension of the field."""

    size: int
    kind: Kind
    field_dim: int = -1

    @property
    def is_position(self) -> bool:
        return self.kind in (Kind.POSITION, Kind.BATCH)

    def __str__(self) -> str:
        return f"{size_text(self.size)} {self.kind.value}"


Axis = tuple[Factor, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The axes of one activation; every slot from 0 to ``len(field_sizes) - 1`` occurs once."""

    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The activation's sizes, one an axis."""
        return tuple(axis_size(axis) for axis in self.axes)

    @property
    def field_sizes(self) -> tuple[int, ...]:
        """The sizes of the label field's dimensions, K left out."""
        by_slot = sorted((f.field_dim, f.size) for axis in self.axes for f in axis if f.is_position)
        return tuple(size for _, size in by_slot)

    def __str__(self) -> str:
        return "(" + ", ".join(axis_text(axis) for axis in self.axes) + ")"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A label field seen with other dimensions: split, reordered, merged.

    ``sizes`` are the sizes into which the field's dimensions are split; each group lists the split
    dimensions that make one dimension of the result, outermost first; an empty group is a
    dimension of size one.
    """

    sizes: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(prod(self.sizes[slot] for slot in group) for group in self.groups)


def channel(size: int) -> Axis:
    """An axis of channels."""
    return (Factor(size, Kind.CHANNEL),)


def size_text(size: int) -> str:
    """A size as a person writes it: the stand-in for a dynamic batch reads ``B``."""
    if size % BATCH or not size:
        return "part of B" if is_dynamic(size) else str(size)
    return "B" if size == BATCH else f"{size // BATCH}*B"


def is_dynamic(size: int) -> bool:
    """Whether a size depends on that of a dynamic batch."""
    return size >= BATCH // 1024


def shape_text(shape: Iterable[int]) -> str:
    """A shape as a person writes it, ``(B, 3, 224, 224)``."""
    return "(" + ", ".join(size_text(size) for size in shape) + ")"


def axis_text(axis: Axis) -> str:
    """An axis in words, ``8 position * 7 position``; a lone size one reads ``1``."""
    return " * ".join(str(factor) for factor in axis) or "1"


def axis_size(axis: Axis) -> int:
    """The number of indices of an axis."""
    return prod(factor.size for factor in axis)


def positions(axis: Axis) -> tuple[Factor, ...]:
    """The position factors of an axis."""
    return tuple(factor for factor in axis if factor.is_position)


def has_positions(axis: Axis) -> bool:
    """Whether the label varies along the axis."""
    return any(factor.is_position for factor in axis)


def has_channels(axis: Axis) -> bool:
    """Whether the axis has a factor of channels, one of size one included."""
    return any(factor.kind is Kind.CHANNEL for factor in axis)


def is_repeated(axis: Axis) -> bool:
    """Whether an axis is of copies alone, all with one label."""
    return bool(axis) and all(factor.kind is Kind.REPEATED for factor in axis)


def pure_positions(axis: Axis) -> bool:
    """Whether the axis is made of positions alone, factors of size one aside."""
    return has_positions(axis) and all(f.is_position or f.size == 1 for f in axis)


def input_layout(shape: Sequence[int], channel_dim: int) -> Layout:
    """The layout of the model's input: the batch first, positions, and ``channel_dim``."""
    kinds = [Kind.BATCH] + [Kind.POSITION] * (len(shape) - 1)
    kinds[channel_dim] = Kind.CHANNEL
    return renumbered([(Factor(size, kind),) for size, kind in zip(shape, kinds, strict=True)])


def renumbered(axes: Sequence[Axis]) -> Layout:
    """The same axes over a fresh field, whose dimensions are numbered in the order of the axes."""
    count = itertools.count()
    return Layout(
        tuple(
            tuple(replace(f, field_dim=next(count) if f.is_position else -1) for f in axis)
            for axis in axes
        )
    )


def arrange(layout: Layout, groups: Iterable[Iterable[Factor]]) -> Arrangement:
    """The field with one dimension a group; factors that are no positions take no part.

    Positions of size one that no group names are merged into the first group, where they change
    nothing.

    Raises:
        LayoutError: a dimension of the field that labels vary along is in no group.
    """
    sizes = layout.field_sizes
    slots = [tuple(f.field_dim for f in group if f.is_position) for group in groups]
    missing = tuple(set(range(len(sizes))).difference(*slots))
    if any(sizes[slot] != 1 for slot in missing):
        raise LayoutError(f"positions of {layout} would be dropped without being aggregated")
    if missing and slots:
        slots[0] = missing + slots[0]
    return Arrangement(sizes, tuple(slots))


def arrange_by_axis(layout: Layout) -> Arrangement:
    """The field with a dimension for each axis that has positions, in the order of the axes."""
    return arrange(layout, (axis for axis in layout.axes if has_positions(axis)))


def arrange_positions(
    layout: Layout, merged: Sequence[int]
) -> tuple[Arrangement, dict[int, int], Layout]:
    """The field with a dimension a position, but only one for each of the axes ``merged``.

    Returns:
        The arrangement, the dimension of each of the merged axes, and the layout over it.
    """
    groups: list[tuple[Factor, ...]] = []
    axes: list[Axis] = []
    dims: dict[int, int] = {}
    for dim, axis in enumerate(layout.axes):
        if dim not in merged:
            groups.extend((factor,) for factor in positions(axis))
            axes.append(axis)
            continue
        dims[dim] = len(groups)
        groups.append(positions(axis))
        kind = axis[0].kind if len(axis) == 1 else Kind.POSITION
        axes.append((Factor(axis_size(axis), kind),))
    return arrange(layout, groups), dims, renumbered(axes)


def cut_windows(layout: Layout, cuts: Mapping[int, tuple[int, int]]) -> Layout:
    """Axes of one position factor each, cut into windows, which may overlap.

    ``cuts`` has (windows, positions in a window) for each of these axes.  The positions inside a
    window become an axis of their own, behind all others, in the order of ``cuts``; in the field
    they follow the dimension of the windows.
    """
    split = sorted(layout.axes[dim][0].field_dim for dim in cuts)
    moved = Layout(
        tuple(
            tuple(replace(f, field_dim=_slot_after(f, split)) if f.is_position else f for f in axis)
            for axis in layout.axes
        )
    )
    axes = list(moved.axes)
    for dim, (count, size) in cuts.items():
        slot = axes[dim][0].field_dim
        axes[dim] = (Factor(count, Kind.POSITION, slot),)
        axes.append((Factor(size, Kind.POSITION, slot + 1),))
    return Layout(tuple(axes))


def _slot_after(factor: Factor, split: Sequence[int]) -> int:
    """The slot of a factor once each of the slots ``split`` has become two."""
    return factor.field_dim + sum(slot < factor.field_dim for slot in split)


def batch_slot(layout: Layout) -> int:
    """The dimension of the field that is the batch.

    Raises:
        LayoutError: the batch has been mixed or joined with other positions.
    """
    for axis in layout.axes:
        for factor in axis:
            if factor.kind is Kind.BATCH:
                return factor.field_dim
    raise LayoutError(f"the prior has no place where the batch is not an axis: {layout}")


# How views move an axis.


@dataclass(frozen=True, slots=True)
class _SplitFactor:
    """A factor while slots are being split.

    ``key`` sorts as the dimensions of the field will; it is empty for all but positions.
    """

    size: int
    kind: Kind
    key: tuple[int, ...]


def _renumber(axes: Iterable[Iterable[_SplitFactor]]) -> Layout:
    frozen = [tuple(axis) for axis in axes]
    keys = sorted(p.key for axis in frozen for p in axis if p.key)
    slots = {key: slot for slot, key in enumerate(keys)}
    return Layout(
        tuple(tuple(Factor(p.size, p.kind, slots.get(p.key, -1)) for p in axis) for axis in frozen)
    )


def _merged(factors: Iterable[Factor]) -> list[_SplitFactor]:
    """Factors with every neighbour merged that lies next to it in the field as well."""
    pieces: list[_SplitFactor] = []
    last: Factor | None = None
    for factor in factors:
        if factor.size == 1 and factor.kind is Kind.REPEATED:
            continue
        if last is not None and _mergeable(factor, last):
            pieces[-1] = replace(pieces[-1], size=pieces[-1].size * factor.size)
        else:
            key = (factor.field_dim,) if factor.is_position else ()
            pieces.append(_SplitFactor(factor.size, factor.kind, key))
        last = factor
    return pieces


def _mergeable(factor: Factor, last: Factor) -> bool:
    """Whether two neighbours of an axis can be one factor; the batch stays by itself."""
    if factor.kind is not last.kind or factor.kind is Kind.BATCH:
        return False
    return factor.field_dim == last.field_dim + 1 or not factor.is_position


def simplify(layout: Layout) -> Layout:
    """The same layout with as few factors as possible: equal labels get equal layouts."""
    return _renumber(_merged(axis) for axis in layout.axes)


def factor_kinds(layout: Layout) -> tuple[tuple[tuple[int, Kind], ...], ...]:
    """The factors of each axis, fields and factors of size one aside: all that weights have."""
    return tuple(tuple((f.size, f.kind) for f in axis if f.size != 1) for axis in layout.axes)


def permute(layout: Layout, dims: Sequence[int]) -> Layout:
    """The axes in another order."""
    return Layout(tuple(layout.axes[dim] for dim in dims))


def unsqueeze(layout: Layout, dim: int) -> Layout:
    """A new axis of size one before axis ``dim``."""
    return Layout((*layout.axes[:dim], (), *layout.axes[dim:]))


def expand(layout: Layout, shape: Sequence[int]) -> Layout:
    """Axes of size one repeated to ``shape``; missing leading axes are added.

    An axis of one channel becomes an axis of channels, any other one of repeated positions.
    """
    missing = len(shape) - len(layout.axes)
    axes: list[Axis] = []
    for axis, size in zip(((),) * missing + layout.axes, shape, strict=True):
        if axis_size(axis) == size:
            axes.append(axis)
        elif has_positions(axis):
            raise LayoutError(
                f"an axis of one position cannot be repeated {size_text(size)} times: {layout}"
            )
        else:
            kind = Kind.CHANNEL if has_channels(axis) else Kind.REPEATED
            axes.append((Factor(size, kind),))
    return Layout(tuple(axes))


def view(layout: Layout, shape: Sequence[int]) -> Layout:
    """The layout of ``activation.reshape(shape)``.

    Raises:
        LayoutError: a new axis would cut through a factor, so that one index of it would stand
            for parts of several positions.
    """
    queue = _merged(factor for axis in layout.axes for factor in axis)
    queue.reverse()  # the next factor is the last one
    axes: list[tuple[_SplitFactor, ...]] = []
    for size, following in itertools.pairwise((*shape, 0)):
        axis = _take(queue, size, layout, shape)
        axes.append(axis if following == 1 else axis + _trailing_ones(axis, queue))
    left = [piece for piece in queue if piece.key]  # positions of size one keep their slots
    if left and axes:
        axes[-1] = axes[-1] + tuple(reversed(left))
    return simplify(_renumber(axes))


def _take(
    queue: list[_SplitFactor], size: int, layout: Layout, shape: Sequence[int]
) -> tuple[_SplitFactor, ...]:
    """Take factors of product ``size`` off the queue, splitting the last one where need be."""
    axis: list[_SplitFactor] = []
    if size == 1 and queue and queue[-1].size == 1:
        return (queue.pop(),)
    need = size
    while need > 1:
        piece = queue.pop()
        if piece.size == 1 and not piece.key:
            continue  # one channel beside other factors says nothing of this axis
        if need % piece.size == 0:
            axis.append(piece)
            need //= piece.size
        elif piece.size % need == 0 and piece.kind is not Kind.BATCH:
            outer, inner = ((*piece.key, part) if piece.key else () for part in (0, 1))
            axis.append(_SplitFactor(need, piece.kind, outer))
            queue.append(_SplitFactor(piece.size // need, piece.kind, inner))
            need = 1
        else:
            raise LayoutError(
                f"a view of {layout} as {shape_text(shape)} cuts through a factor: an index of "
                f"the axis of size {size_text(size)} would mix parts of several positions"
            )
    return tuple(axis)


def _trailing_ones(
    axis: tuple[_SplitFactor, ...], queue: list[_SplitFactor]
) -> tuple[_SplitFactor, ...]:
    """Positions of size one between this axis, of positions, and channels, taken off the queue.

    By their size they could be of either axis; channels with a position among them could not be
    told apart from it.
    """
    if not axis or axis[-1].kind is not Kind.POSITION:
        return ()
    ones = list(itertools.takewhile(lambda piece: piece.key and piece.size == 1, reversed(queue)))
    rest = len(queue) - len(ones)
    if rest and queue[rest - 1].key:
        return ()
    del queue[rest:]
    return tuple(ones)


def replace_axis(layout: Layout, dim: int, axis: Axis) -> Layout:
    """Axis ``dim`` replaced; the caller sees to the slots."""
    return Layout((*layout.axes[:dim], axis, *layout.axes[dim + 1 :]))


# Several layouts side by side.


@dataclass(frozen=True, slots=True)
class CommonFactor:
    """A run of indices of one axis that several operands cut alike.

    ``parts`` has an operand's factors of that run, or ``None`` where the operand is broadcast.
    Along a ``joined`` axis the operands stand one after the other.
    """

    size: int
    parts: tuple[Axis | None, ...]
    joined: bool = False

    @property
    def varies(self) -> bool:
        """Whether the label varies along the cell."""
        return self.joined or any(part is not None and has_positions(part) for part in self.parts)

    @property
    def factor(self) -> Factor:
        """The cell as one factor of the combined layout (slot not yet numbered)."""
        if self.joined:
            return Factor(self.size, Kind.POSITION)
        kinds = {factor.kind for part in self.parts if part is not None for factor in part}
        for kind in Kind:  # in the order of their weight
            if kind in kinds:
                return Factor(self.size, kind)
        return Factor(self.size, Kind.CHANNEL)


@dataclass(frozen=True, slots=True)
class Alignment:
    """Operands of one element-wise step, cut into common cells."""

    layouts: tuple[Layout, ...]
    cells: tuple[tuple[CommonFactor, ...], ...]

    @property
    def layout(self) -> Layout:
        """The layout of the result, over a fresh field with one dimension a varying cell."""
        field_dim = 0
        axes: list[Axis] = []
        for cells in self.cells:
            axis: list[Factor] = []
            for cell in cells:
                axis.append(replace(cell.factor, field_dim=field_dim if cell.varies else -1))
                field_dim += cell.varies
            axes.append(tuple(axis))
        return Layout(tuple(axes))

    def arrangement(self, operand: int) -> Arrangement:
        """The operand's field with the dimensions of the result, broadcast ones of size one."""
        groups = [
            cell.parts[operand] or () for cells in self.cells for cell in cells if cell.varies
        ]
        return arrange(self.layouts[operand], groups)


def align_axes(
    layouts: Sequence[Layout], shape: Sequence[int], joined: int | None = None
) -> Alignment:
    """Cut the axes of broadcast operands into common cells, each of one kind an operand.

    Along the axis ``joined`` the operands are not compared: it is one cell that has each operand's
    whole axis.

    Raises:
        LayoutError: two operands cut an axis in ways that do not nest.
    """
    padded = [((),) * (len(shape) - len(layout.axes)) + layout.axes for layout in layouts]
    columns: list[tuple[int, ...]] = []
    for dim, size in enumerate(shape):
        if dim == joined:
            columns.append((size,))
            continue
        axes = [axes[dim] if axis_size(axes[dim]) == size else None for axes in padded]
        columns.append(_common_shape(axes, size))
    refined = tuple(
        _refine(layout, padded[operand], columns, shape) for operand, layout in enumerate(layouts)
    )
    cells: list[tuple[CommonFactor, ...]] = []
    for dim, sizes in enumerate(columns):
        if dim == joined:
            whole = tuple(layout.axes[dim] for layout in refined)
            cells.append((CommonFactor(shape[dim], whole, joined=True),))
            continue
        parts = [_parts(layout.axes[dim], sizes) for layout in refined]
        cells.append(
            tuple(
                CommonFactor(size, tuple(None if part is None else part[index] for part in parts))
                for index, size in enumerate(sizes)
            )
        )
    return Alignment(refined, tuple(cells))


def _boundaries(axis: Axis) -> set[int]:
    """The products of the axis's trailing factors: where its factors end, counted from inside."""
    bounds = {1}
    for factor in reversed(axis):
        bounds.add(max(bounds) * factor.size)
    return bounds


def _homogeneous(axis: Axis, low: int, high: int) -> bool:
    """Whether the axis between two of its boundaries is batch, positions or without label."""
    inner = 1
    seen = set()
    for factor in reversed(axis):
        if low <= inner < high:
            seen.add((factor.is_position, factor.kind is Kind.BATCH))
        inner *= factor.size
    return len(seen) <= 1


def _common_shape(axes: Sequence[Axis | None], size: int) -> tuple[int, ...]:
    """The sizes of the cells into which every operand's axis can be cut."""
    present = [axis for axis in axes if axis]
    if not present:  # broadcast by a constant, or an axis of size one without a factor
        return () if size == 1 else (size,)
    every = [_boundaries(axis) for axis in present]
    common = sorted(set.intersection(*every))
    bounds = [common[0]]
    for low, high in itertools.pairwise(common):
        if all(_homogeneous(axis, low, high) for axis in present):
            bounds.append(high)
            continue
        bounds.extend(sorted(b for b in set.union(*every) if low < b <= high))
    for low, high in itertools.pairwise(bounds):
        if high % low:
            texts = ", ".join(axis_text(axis) for axis in present)
            raise LayoutError(f"operands cut an axis in ways that do not nest: {texts}")
    return tuple(b // a for a, b in itertools.pairwise(bounds))[::-1] or (size,)


def _refine(
    layout: Layout, axes: Sequence[Axis], columns: Sequence[tuple[int, ...]], shape: Sequence[int]
) -> Layout:
    """The layout with every factor split where a cell of its axis ends."""
    pieces: list[tuple[_SplitFactor, ...]] = []
    for axis, sizes, size in zip(axes, columns, shape, strict=True):
        queue = [
            _SplitFactor(f.size, f.kind, (f.field_dim,) if f.is_position else ()) for f in axis
        ]
        if axis_size(axis) != size:
            pieces.append(tuple(queue))
            continue
        queue.reverse()
        cut: list[_SplitFactor] = []
        for cell in sizes:
            cut.extend(_take(queue, cell, layout, shape))
        pieces.append((*cut, *reversed(queue)))
    return _renumber(pieces)


def _parts(axis: Axis, sizes: Sequence[int]) -> list[Axis] | None:
    """The axis's factors cell by cell; None where the axis is broadcast."""
    if axis_size(axis) != prod(sizes):
        return None
    parts: list[Axis] = []
    remaining = list(axis)
    for size in sizes:
        part: list[Factor] = []
        while remaining and (axis_size(tuple(part)) < size or (size == 1 and not part)):
            part.append(remaining.pop(0))
        parts.append(tuple(part))
    if parts:
        parts[-1] = parts[-1] + tuple(remaining)
    return parts
