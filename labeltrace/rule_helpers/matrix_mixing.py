"""How a matrix mixes a label field: the equation, and the labels that it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from labeltrace.flow import LabelView, NamedOperand
from labeltrace.index_notation.mixing_equation import MixingEquation, Sizes
from labeltrace.index_notation.parsing import Names
from labeltrace.index_notation.spare_names import SpareNames
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    Size,
    arrange,
    axis_size,
    channel,
    has_channels,
    has_positions,
    renumbered,
)


@dataclass(frozen=True, slots=True)
class MixingPlan:
    """How weights mix a field.

    Attributes:
        labels: the stream's labels, with the dimensions that the equation names.
        equation: the axes of weights, labels and result.
        layout: the layout of the result.
        field_shape: the sizes of the result's label field, K left out.
    """

    labels: LabelView
    equation: MixingEquation
    layout: Layout
    field_shape: tuple[Size, ...]


def plan_mixing(
    stream: NamedOperand, matrix: NamedOperand, result: Names, sizes: Mapping[str, Size]
) -> MixingPlan:
    """Name the axes of `Norm(W)·Y`.

    Letters that stream and matrix share stay or are mixed away.  Letters that the matrix alone has
    are rows, the positions of the result.  If some of them are positions of the matrix (queries),
    the others are channels (heads), whose matrices are averaged.
    """
    rows = _row_letters(stream, matrix, result)
    spare = SpareNames({*stream.letters, *matrix.letters})
    runs = {
        letter: _named_runs(letter, stream, matrix, rows, sizes, spare)
        for letter in dict.fromkeys((*stream.axes, *matrix.axes))
    }
    weights = tuple(
        tuple(run.name for run in runs[letter]) if letter in matrix.axes else (spare.fresh(),)
        for letter in matrix.letters
    )
    label_letters = [letter for letter in stream.letters if letter in stream.axes]
    moved = [run for letter in label_letters for run in runs[letter] if run.in_labels]
    labels = LabelView(
        stream.operand, arrange(stream.operand.traced_layout, [run.factors for run in moved])
    )
    shown = [run for letter in result for run in runs.get(letter, ()) if run.in_result]
    kept = [
        _result_axis(runs.get(letter, ()), sizes[letter], stream.axes.get(letter, ()))
        for letter in result
    ]
    equation = MixingEquation(
        weights=weights,
        labels=tuple(run.name for run in moved),
        result=tuple(run.name for run in shown),
        sizes=_sizes_in_parentheses([runs[letter] for letter in matrix.axes]),
    )
    field_shape = tuple(axis_size(run.factors) for run in shown)
    return MixingPlan(labels, equation, renumbered(kept), field_shape)


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighboring factors of an axis that are all positions or all channels, under one name."""

    name: str
    factors: Axis
    in_labels: bool
    in_result: bool


def _row_letters(stream: NamedOperand, matrix: NamedOperand, result: Names) -> set[str]:
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
    stream: NamedOperand,
    matrix: NamedOperand,
    rows: set[str],
    sizes: Mapping[str, Size],
    spare: SpareNames,
) -> tuple[_Run, ...]:
    """The runs of one letter's axis: the stream's where it has the letter, else the matrix's."""
    in_stream = letter in stream.axes
    axis = stream.axes[letter] if in_stream else matrix.axes[letter]
    if letter in rows:
        axis = _row_axis(axis, sizes[letter])
    grouped = [tuple(run) for _, run in groupby(axis, key=lambda factor: factor.is_position)]
    return tuple(
        _Run(
            name=letter if index == 0 else spare.fresh(),
            factors=run,
            in_labels=in_stream and has_positions(run),
            in_result=has_positions(run) and (in_stream or letter in rows),
        )
        for index, run in enumerate(grouped or [()])
    )


def _sizes_in_parentheses(axes: Iterable[Sequence[_Run]]) -> Sizes:
    """The sizes of the names of axes that have several, except that of a dynamic batch."""
    named = ((run.name, axis_size(run.factors)) for runs in axes if len(runs) > 1 for run in runs)
    return tuple((name, size) for name, size in named if isinstance(size, int))


def _row_axis(axis: Axis, size: Size) -> Axis:
    """The axis of rows: each row is a position, also where the queries' own labels repeat."""
    if not has_positions(axis):
        return (Factor(size, Kind.POSITION),)
    return tuple(
        replace(factor, kind=Kind.POSITION) if factor.kind is Kind.REPEATED else factor
        for factor in axis
    )


def _result_axis(runs: Sequence[_Run], size: Size, own: Axis) -> Axis:
    """The axis of a letter of the result; `own` is the stream's axis of that letter."""
    if size == 1 and not any(run.in_labels for run in runs):
        return own if has_channels(own) else ()  # one row is no axis of positions
    factors = tuple(
        factor if run.in_result or not factor.is_position else Factor(factor.size, Kind.REPEATED)
        for run in runs
        for factor in run.factors
    )
    return factors if axis_size(factors) == size else channel(size)
