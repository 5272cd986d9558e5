"""Contractions: which operation a product of two tensors is, by the factors it contracts.

A rule states its operator in index notation (``"... i, o i -> ... o"``).  What the step does to
labels follows from the factors behind the letters, for a label-carrying operand and a matrix
(a constant or mixing weights):

====================================  ============================================================
contracted letters of the operand     operation
====================================  ============================================================
channels only                         channel mixing: labels stay
positions only                        spatial mixing with the matrix, eq. 7; its other letters are
                                      the new (virtual) positions
positions inside a channel axis       spatial aggregation: their mean
====================================  ============================================================

Two label-carrying operands: the product of queries and keys, which have positions of their own
each, is mixing weights (contract, point 9); a stream without positions of its own is a gate
(point 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from string import ascii_lowercase

from labeltrace.call import Shape
from labeltrace.combination import combine, over, with_axes
from labeltrace.errors import LayoutError
from labeltrace.flow import (
    Aggregate,
    Constant,
    Flow,
    Labels,
    Mix,
    Operand,
    Operation,
    Weights,
)
from labeltrace.layout import (
    BATCH,
    Axis,
    Factor,
    Kind,
    Layout,
    arrange,
    axis_size,
    channel,
    expand,
    has_channels,
    has_positions,
    natural,
    positions,
)

Letters = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Side:
    """One operand's axes by letter; broadcast axes are left out."""

    operand: Operand
    letters: Letters
    axes: Mapping[str, Axis]

    def has_positions(self, letter: str) -> bool:
        return has_positions(self.axes.get(letter, ()))

    @property
    def positions(self) -> set[str]:
        """The letters along which the operand's label varies."""
        return {letter for letter in self.axes if self.has_positions(letter)}


def contract(notation: str, first: Operand, second: Operand, output: Shape) -> Flow:
    """The flow of ``einsum(notation, first, second)``.

    ``...`` stands for leading axes that broadcast as in ``matmul``.

    Raises:
        LayoutError: the contraction mixes positions in a way that has no meaning as a flow.
    """
    one, two, result = _parse(notation, (len(first.shape), len(second.shape)), len(output))
    sizes = _sizes((one, first.shape), (two, second.shape))
    sides = (_side(first, one, sizes), _side(second, two, sizes))
    if first.labelled and second.labelled:
        return _two_streams(*sides, result, output, sizes)
    if first.labelled or second.labelled:
        stream, matrix = sides if first.labelled else sides[::-1]
        return _stream_and_matrix(stream, matrix, result, sizes)
    if not first.traced and not second.traced:
        return Constant()
    return _weights(*sides, result, sizes)


# Notation.


def _parse(notation: str, ranks: tuple[int, int], rank: int) -> tuple[Letters, Letters, Letters]:
    inputs, result = notation.split("->")
    texts = [text.split() for text in (*inputs.split(","), result)]
    spare = [letter for letter in ascii_lowercase if letter not in notation]
    widths = (*ranks, rank)
    most = (
        max(
            width - (len(text) - 1)
            for text, width in zip(texts, widths, strict=True)
            if "..." in text
        )
        if "..." in notation
        else 0
    )
    leading = spare[:most]
    parsed = [_spell(text, width, leading) for text, width in zip(texts, widths, strict=True)]
    return parsed[0], parsed[1], parsed[2]


def _spell(text: Sequence[str], rank: int, leading: Sequence[str]) -> Letters:
    if "..." not in text:
        return tuple(text)
    index = text.index("...")
    missing = rank - (len(text) - 1)
    ellipsis = leading[len(leading) - missing :]
    return (*text[:index], *ellipsis, *text[index + 1 :])


def _sizes(*operands: tuple[Letters, Shape]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for letters, shape in operands:
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return sizes


def _side(operand: Operand, letters: Letters, sizes: Mapping[str, int]) -> Side:
    if operand.layout is None:
        present = {
            letter: channel(size)
            for letter, size in zip(letters, operand.shape, strict=True)
            if size == sizes[letter]
        }
        return Side(operand, letters, present)
    axes = {
        letter: axis
        for letter, axis in zip(letters, operand.layout.axes, strict=True)
        if axis_size(axis) == sizes[letter]
    }
    return Side(operand, letters, axes)


# The cases.


def _stream_and_matrix(
    stream: Side, matrix: Side, result: Letters, sizes: Mapping[str, int]
) -> Flow:
    contracted = [letter for letter in stream.axes if letter not in result]
    moved = [letter for letter in contracted if stream.has_positions(letter)]
    if not moved:
        _refuse_unresolved(matrix)
        return _channel_mixing(stream, matrix, result, sizes)
    if all(letter in matrix.axes and not has_channels(stream.axes[letter]) for letter in moved):
        plan = plan_mixing(stream, matrix, result, sizes)
        return Mix(
            layout=plan.layout,
            stored=plan.stored,
            source=plan.labels,
            weights=matrix.operand,
            notation=plan.notation,
            sizes=plan.sizes,
        )
    if matrix.operand.traced and any(letter in matrix.positions for letter in moved):
        raise LayoutError(
            "positions and channels of one axis are contracted with mixing weights: "
            f"{stream.operand.layout} by {matrix.operand.layout}"
        )
    return _aggregation(stream, matrix, result, sizes)


def _two_streams(
    first: Side, second: Side, result: Letters, output: Shape, sizes: Mapping[str, int]
) -> Flow:
    contracted = [letter for letter in sizes if letter not in result]
    one = {letter for letter in contracted if first.has_positions(letter)}
    two = {letter for letter in contracted if second.has_positions(letter)}
    if one & two:  # a sum over positions of a product: channels by channels, or keys by values
        layout = _result_layout((first, second), result, sizes)
        return Weights(layout=layout, unresolved=True)
    if one or two:  # the stream that has channels there gives the weights
        stream, matrix = (first, second) if one else (second, first)
        return _stream_and_matrix(stream, matrix, result, sizes)
    own_one = (first.positions - second.positions) & set(result)
    own_two = (second.positions - first.positions) & set(result)
    if own_one and own_two:
        return Weights(layout=_result_layout((first, second), result, sizes), unresolved=False)
    if own_one or own_two:
        stream, matrix = (first, second) if own_one else (second, first)
        return _channel_mixing(stream, matrix, result, sizes)
    return product(
        with_axes(first.operand, _kept(first, result, sizes)),
        with_axes(second.operand, _kept(second, result, sizes)),
        output,
        operation=Operation.CHANNEL_MIXING,
    )


def product(first: Operand, second: Operand, output: Shape, *, operation: Operation) -> Flow:
    """The product of two streams: the gate is ignored, equals are averaged (point 8).

    A stream without positions that the other lacks is the gate; between streams on the same
    positions it is the one whose last non-linear step is bounded.
    """
    combined = combine((first, second), output, operation=operation, bounded=False)
    whole = [op for op in (first, second) if _extent(op.positions) == _extent(combined.layout)]
    if len(whole) == 2 and first.labelled != second.labelled:  # weights gate the content
        whole = [first if first.labelled else second]
    elif len(whole) == 2 and first.bounded != second.bounded:
        whole = [second if first.bounded else first]
    if len(whole) == 1 and whole[0].labelled:
        return over(whole[0], expand(whole[0].positions, output), operation=operation)
    return combined


def _extent(layout: Layout | None) -> int:
    """The number of positions of a layout."""
    return prod(layout.field_sizes) if layout is not None else 0


def _weights(first: Side, second: Side, result: Letters, sizes: Mapping[str, int]) -> Flow:
    """Weights times a constant or other weights are weights (talking heads, positions)."""
    for side in (first, second):
        _refuse_unresolved(side)
    traced = [side for side in (first, second) if side.operand.traced]
    return Weights(layout=_result_layout((*traced, first, second), result, sizes))


def _refuse_unresolved(side: Side) -> None:
    if side.operand.unresolved:
        raise LayoutError(
            "a product of keys and values, summed over positions, is contracted with a third "
            "tensor without a non-linear step between: linear attention needs a rule of its own"
        )


# Layouts of results.


def _result_layout(sides: Sequence[Side], result: Letters, sizes: Mapping[str, int]) -> Layout:
    """The layout of weights: each letter's axis from the first side that has positions there."""
    axes: list[Axis] = []
    for letter in result:
        found = [side.axes[letter] for side in sides if letter in side.axes]
        varying = [axis for axis in found if has_positions(axis)]
        axes.append(next(iter(varying or found), channel(sizes[letter])))
    return natural(axes)


def _kept(side: Side, result: Letters, sizes: Mapping[str, int]) -> Layout:
    """A side's own layout on the letters of the result; contracted channels are gone."""
    return Layout(tuple(side.axes.get(letter, ()) for letter in result))


def _channel_mixing(stream: Side, matrix: Side, result: Letters, sizes: Mapping[str, int]) -> Flow:
    axes: list[Axis] = []
    for letter in result:
        if letter in stream.axes:
            axes.append(stream.axes[letter])
        elif matrix.has_positions(letter):
            axes.append((Factor(sizes[letter], Kind.REPEATED),))
        else:
            axes.append(channel(sizes[letter]))
    return over(stream.operand, Layout(tuple(axes)), operation=Operation.CHANNEL_MIXING)


def _aggregation(stream: Side, matrix: Side, result: Letters, sizes: Mapping[str, int]) -> Flow:
    """Positions inside contracted channel axes: their mean."""
    kept = [axis for letter in result for axis in [stream.axes.get(letter, ())]]
    gone = [axis for letter, axis in stream.axes.items() if letter not in result]
    layout = natural([stream.axes.get(letter, channel(sizes[letter])) for letter in result])
    return aggregation(stream.operand, layout, kept, gone)


def aggregation(
    source: Operand, layout: Layout, kept: Sequence[Axis], gone: Sequence[Axis]
) -> Flow:
    """The mean over the positions of the axes ``gone``; ``layout`` is the result's, natural."""
    groups: list[tuple[Factor, ...]] = [(f,) for axis in kept for f in positions(axis)]
    groups += [(f,) for axis in gone for f in positions(axis)]
    count = sum(len(positions(axis)) for axis in gone)
    labels = Labels(source, arrange(source.positions, groups))
    return Aggregate(layout=layout, source=labels, count=count)


# Mixing.


@dataclass(frozen=True, slots=True)
class MixingPlan:
    """How weights mix a field: the labels as they are needed, names of axes, the result."""

    labels: Labels
    notation: str
    sizes: tuple[tuple[str, int], ...]
    layout: Layout
    stored: tuple[int, ...]


def plan_mixing(
    stream: Side, matrix: Side, result: Letters, sizes: Mapping[str, int]
) -> MixingPlan:
    """Name the axes of ``Norm(W)·Y``.

    Letters that stream and matrix share stay or are mixed away.  Letters of the matrix alone are
    rows: the positions of the result.  Where the matrix has positions among them (queries), its
    other such letters are channels (heads), whose matrices are averaged.
    """
    rows = _row_letters(stream, matrix, result)
    names = _Names(set(stream.letters) | set(matrix.letters))
    runs = {
        letter: _named_runs(letter, stream, matrix, rows, sizes, names)
        for letter in dict.fromkeys((*stream.axes, *matrix.axes))
    }
    weight_text = " ".join(
        _axis_name(runs[letter]) if letter in matrix.axes else names.fresh()
        for letter in matrix.letters
    )
    label_letters = [letter for letter in stream.letters if letter in stream.axes]
    moved = [run for letter in label_letters for run in runs[letter] if run.in_labels]
    labels = Labels(
        stream.operand, arrange(stream.operand.positions, [run.factors for run in moved])
    )
    shown = [run for letter in result for run in runs.get(letter, ()) if run.in_result]
    notation = (
        f"{weight_text}, {' '.join(run.name for run in moved)} -> "
        f"{' '.join(run.name for run in shown)}"
    )
    layout = natural([_result_axis(runs.get(letter, ()), sizes[letter]) for letter in result])
    known = tuple(
        (run.name, axis_size(run.factors))
        for letter in matrix.axes
        if len(runs[letter]) > 1
        for run in runs[letter]
        if axis_size(run.factors) % BATCH
    )
    stored = tuple(axis_size(run.factors) for run in shown)
    return MixingPlan(labels, notation, known, layout, stored)


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring factors of an axis that are all positions or all channels, under one name."""

    name: str
    factors: Axis
    in_labels: bool
    in_result: bool


class _Names:
    """Letters for the runs of composite axes."""

    def __init__(self, used: set[str]) -> None:
        self._spare = [letter for letter in reversed(ascii_lowercase) if letter not in used]

    def fresh(self) -> str:
        return self._spare.pop()


def _row_letters(stream: Side, matrix: Side, result: Letters) -> set[str]:
    """The letters of the matrix alone that are positions of the result."""
    own = [
        letter
        for letter, axis in matrix.axes.items()
        if letter in result and letter not in stream.axes and axis_size(axis) > 1
    ]
    queries = {letter for letter in own if matrix.has_positions(letter)}
    return queries or set(own)


def _named_runs(
    letter: str,
    stream: Side,
    matrix: Side,
    rows: set[str],
    sizes: Mapping[str, int],
    names: _Names,
) -> tuple[_Run, ...]:
    """The runs of one letter's axis: the stream's where it has the letter, else the matrix's."""
    in_stream = letter in stream.axes
    axis = stream.axes[letter] if in_stream else matrix.axes[letter]
    if letter in rows and not has_positions(axis):
        axis = (Factor(sizes[letter], Kind.POSITION),)
    grouped = [tuple(run) for _, run in groupby(axis, key=lambda factor: factor.is_position)]
    return tuple(
        _Run(
            name=letter if index == 0 else names.fresh(),
            factors=run,
            in_labels=in_stream and has_positions(run),
            in_result=has_positions(run) and (in_stream or letter in rows),
        )
        for index, run in enumerate(grouped or [()])
    )


def _axis_name(runs: Sequence[_Run]) -> str:
    if len(runs) == 1:
        return runs[0].name
    return "(" + " ".join(run.name for run in runs) + ")"


def _result_axis(runs: Sequence[_Run], size: int) -> Axis:
    if size == 1 and not any(run.in_labels for run in runs):
        return ()  # one row is no axis of positions
    factors = tuple(
        factor if run.in_result or not factor.is_position else Factor(factor.size, Kind.REPEATED)
        for run in runs
        for factor in run.factors
    )
    return factors if axis_size(factors) == size else channel(size)
