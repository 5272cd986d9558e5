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
from dataclasses import replace
from math import prod

from labeltrace.errors import LayoutError
from labeltrace.flow import (
    Aggregate,
    Constant,
    Flow,
    LabelView,
    Mix,
    NamedOperand,
    Operand,
    Operation,
    Weights,
)
from labeltrace.index_notation.contraction_equation import ContractionEquation
from labeltrace.index_notation.parsing import Names
from labeltrace.layout import (
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
    is_repeated,
    positions,
    renumbered,
)
from labeltrace.rule_api.call import Shape
from labeltrace.rule_helpers.elementwise import combine, relayout, with_layout
from labeltrace.rule_helpers.linear_attention import keys_times_values, linear_mixing
from labeltrace.rule_helpers.matrix_mixing import plan_mixing
from labeltrace.rule_helpers.named_operand import (
    axis_sizes,
    name_axes,
)
from labeltrace.rule_helpers.output_facts import after_nonlinear, with_key_features

TWO_STEP_ATTENTION = (
    "queries choose among features whose labels were gathered over the tokens and averaged over "
    "heads before: the two mixings are taken one after the other"
)

CROSS_SAMPLE = (
    "images of a batch are mixed with one another: source k is taken to be the same in all of them"
)


def contract(
    equation: str | ContractionEquation, first: Operand, second: Operand, output: Shape
) -> Flow:
    """The flow of `einsum(equation, first, second)`.

    Example:
        The rule of a linear layer:

        >>> def linear(call: Call) -> Flow:
        ...     return contract("... i, o i -> ... o", call["input"], call["weight"], call.output)

    Args:
        equation: the axes of both operands and of the result, by name; `...` is any number of
            leading axes, which broadcast as in `torch.matmul`.
        first: one operand of the product.
        second: the other one.
        output: the shape of the result.

    Raises:
        LayoutError: the contraction mixes positions in a way that has no meaning as a flow.
        NotationError: the equation cannot be read, or it does not name the axes of the tensors.
    """
    if isinstance(equation, str):
        equation = ContractionEquation.parse(equation)
    named = equation.with_axes_named((len(first.shape), len(second.shape)), len(output))
    result = named.result
    sizes = axis_sizes((named.first, first.shape), (named.second, second.shape))
    sides = (name_axes(first, named.first, sizes), name_axes(second, named.second, sizes))
    if first.labelled and second.labelled:
        return _two_streams(*sides, result, output, sizes)
    if first.labelled or second.labelled:
        stream, matrix = sides if first.labelled else sides[::-1]
        return _stream_and_matrix(stream, matrix, result, sizes)
    if not first.traced and not second.traced:
        return Constant()
    return _weights(*sides, result, sizes)


def _stream_and_matrix(
    stream: NamedOperand, matrix: NamedOperand, result: Names, sizes: Mapping[str, int]
) -> Flow:
    contracted = [letter for letter in stream.axes if letter not in result]
    moved = [letter for letter in contracted if stream.has_positions(letter)]
    if not moved:
        if matrix.operand.key_value_product is not None:
            return linear_mixing(stream, matrix, result, sizes)
        return _channel_mixing(stream, matrix, result, sizes)
    if all(letter in matrix.axes and not has_channels(stream.axes[letter]) for letter in moved):
        stream = _drop_repeated_axes(stream, matrix)
        plan = plan_mixing(stream, matrix, result, sizes)
        gathered = _gathers_features(stream, matrix, result)
        axes = _result_layout((stream, matrix), result, sizes).axes
        mix = Mix(
            as_weights=keys_times_values(matrix, stream, result, axes) if gathered else None,
            approximation=_mixing_approximation(stream, matrix, moved),
            layout=plan.layout,
            field_shape=plan.field_shape,
            source=plan.labels,
            weights=matrix.operand,
            equation=plan.equation,
        )
        return with_key_features(mix, gathered)
    if matrix.operand.traced and any(letter in matrix.positions for letter in moved):
        raise LayoutError(
            "positions and channels of one axis are contracted with mixing weights: "
            f"{stream.operand.layout} by {matrix.operand.layout}"
        )
    return _aggregation(stream, result, sizes)


def _drop_repeated_axes(stream: NamedOperand, matrix: NamedOperand) -> NamedOperand:
    """The stream without axes that repeat its label, where the matrix differs along them."""
    kept = {
        letter: axis
        for letter, axis in stream.axes.items()
        if not (is_repeated(axis) and matrix.varies_along(letter))
    }
    return replace(stream, axes=kept)


def _gathers_features(stream: NamedOperand, matrix: NamedOperand, result: Names) -> bool:
    """Whether the rows are features of keys: a query of one row has none."""
    new = set(result) - set(stream.axes)
    rows = {letter for letter in new if axis_size(matrix.axes.get(letter, ())) > 1}
    return matrix.operand.traced and bool(rows) and not rows & matrix.positions


def _mixing_approximation(stream: NamedOperand, matrix: NamedOperand, moved: Sequence[str]) -> str:
    """Why mixing by a matrix is not exact; empty where it is."""
    if any(factor.kind is Kind.BATCH for letter in moved for factor in stream.axes[letter]):
        return CROSS_SAMPLE
    return TWO_STEP_ATTENTION if stream.operand.holds_key_features and matrix.operand.traced else ""


def _two_streams(
    first: NamedOperand,
    second: NamedOperand,
    result: Names,
    output: Shape,
    sizes: Mapping[str, int],
) -> Flow:
    contracted = [letter for letter in sizes if letter not in result]
    one = {letter for letter in contracted if first.has_positions(letter)}
    two = {letter for letter in contracted if second.has_positions(letter)}
    for stream, matrix in ((first, second), (second, first)):
        if one & two and is_score_matrix(matrix, stream):
            return _stream_and_matrix(stream, matrix, result, sizes)
    if one & two:  # a sum over positions of a product: channels by channels, or keys by values
        layout = _result_layout((first, second), result, sizes)
        return keys_times_values(first, second, result, layout.axes)
    if one or two:  # the stream that has channels there gives the weights
        stream, matrix = (first, second) if one else (second, first)
        return _stream_and_matrix(stream, matrix, result, sizes)
    own_one = (first.positions - second.positions) & set(result)
    own_two = (second.positions - first.positions) & set(result)
    if own_one and own_two:
        return Weights(layout=_result_layout((first, second), result, sizes))
    if own_one or own_two:
        stream, matrix = (first, second) if own_one else (second, first)
        flow = _channel_mixing(stream, matrix, result, sizes)
    else:
        flow = product(
            with_layout(first.operand, _surviving_layout(first, result)),
            with_layout(second.operand, _surviving_layout(second, result)),
            output,
            operation=Operation.CHANNEL_MIXING,
        )
    is_score = is_inner_product(first, second, result, sizes)
    return after_nonlinear(flow, is_gate=True) if is_score else flow


def is_inner_product(
    first: NamedOperand, second: NamedOperand, result: Names, sizes: Mapping[str, int]
) -> bool:
    """Whether a product of two streams is an inner one: of their channels it leaves heads alone.

    That is a score, which scales what it multiplies (contract, points 8 and 9): the normaliser of
    linear attention, a query times the sum of all keys.
    """

    def shared(letter: str) -> bool:
        return all(has_channels(side.axes.get(letter, ())) for side in (first, second))

    places = first.positions | second.positions
    left = [letter for letter in result if sizes[letter] > 1 and letter not in places]
    contracted = [letter for letter in sizes if letter not in result and letter not in places]
    return any(map(shared, contracted)) and all(map(shared, left))


def is_score_matrix(one: NamedOperand, other: NamedOperand) -> bool:
    """Whether a stream holds one number for each pair of positions, of its own and the other's.

    Such are scores that no softmax has made weights, a kernel of distances; the other has features.
    """
    own = {letter for letter in one.positions if not other.varies_along(letter)}
    features = any(map(has_channels, other.axes.values()))
    return bool(own) and features and not any(map(has_channels, one.axes.values()))


def product(first: Operand, second: Operand, output: Shape, *, operation: Operation) -> Flow:
    """The product of two streams: the gate is ignored, equals are averaged (point 8).

    A stream without positions that the other lacks is the gate; between streams on the same
    positions it is the one whose last non-linear step is bounded.
    """
    combined = combine((first, second), output, operation=operation, is_gate=False)
    assert combined.layout is not None
    count = prod(combined.layout.field_sizes)
    whole = [op for op in (first, second) if prod(op.traced_layout.field_sizes) == count]
    if len(whole) == 2 and first.labelled != second.labelled:  # weights gate the content
        whole = [first if first.labelled else second]
    elif len(whole) == 2 and first.is_gate != second.is_gate:
        whole = [second if first.is_gate else first]
    if len(whole) == 1 and whole[0].labelled:
        flow = relayout(whole[0], expand(whole[0].traced_layout, output), operation=operation)
        return with_key_features(replace(flow, as_weights=_as_weights(combined)), False)
    return with_key_features(combined, False)


def _as_weights(combined: Flow) -> Weights | None:
    """A product with mixing weights read as mixing weights itself; None without such a factor."""
    return combined if isinstance(combined, Weights) else None


def _weights(
    first: NamedOperand, second: NamedOperand, result: Names, sizes: Mapping[str, int]
) -> Flow:
    """Weights times a constant or other weights are weights (talking heads, positions)."""
    if first.operand.key_value_product is not None or second.operand.key_value_product is not None:
        raise LayoutError(
            "a product of keys and values, summed over positions, is contracted with something "
            "that has no label of its own; queries that come from the image would mix positions"
        )
    traced = [side for side in (first, second) if side.operand.traced]
    return Weights(layout=_result_layout((*traced, first, second), result, sizes))


# Layouts of results.


def _result_layout(
    sides: Sequence[NamedOperand], result: Names, sizes: Mapping[str, int]
) -> Layout:
    """The layout of weights: each letter's axis from the first side that has positions there."""
    axes: list[Axis] = []
    for letter in result:
        found = [side.axes[letter] for side in sides if letter in side.axes]
        varying = [axis for axis in found if has_positions(axis)]
        axes.append(next(iter(varying or found), channel(sizes[letter])))
    return renumbered(axes)


def _surviving_layout(side: NamedOperand, result: Names) -> Layout:
    """A side's own layout on the letters of the result; contracted channels are gone."""
    return Layout(tuple(side.axes.get(letter, ()) for letter in result))


def kind_of_new_axis(stream: NamedOperand, result: Names) -> Kind:
    """What a new axis holds in place of contracted ones without positions: channels or copies.

    Where copies are contracted, or an axis of size one, the channels are elsewhere, and stay there.
    """
    kept = any(has_channels(axis) for letter, axis in stream.axes.items() if letter in result)
    gone = any(has_channels(axis) for letter, axis in stream.axes.items() if letter not in result)
    return Kind.REPEATED if kept and not gone else Kind.CHANNEL


def _channel_mixing(
    stream: NamedOperand, matrix: NamedOperand, result: Names, sizes: Mapping[str, int]
) -> Flow:
    new = kind_of_new_axis(stream, result)
    axes: list[Axis] = []
    for letter in result:
        if letter in stream.axes:
            axes.append(stream.axes[letter])
        elif matrix.has_positions(letter):
            axes.append((Factor(sizes[letter], Kind.REPEATED),))
        else:
            axes.append((Factor(sizes[letter], new),))
    return relayout(stream.operand, Layout(tuple(axes)), operation=Operation.CHANNEL_MIXING)


def _aggregation(stream: NamedOperand, result: Names, sizes: Mapping[str, int]) -> Flow:
    """Positions inside contracted channel axes: their mean."""
    kept = [stream.axes.get(letter, ()) for letter in result]
    gone = [axis for letter, axis in stream.axes.items() if letter not in result]
    layout = renumbered([stream.axes.get(letter, channel(sizes[letter])) for letter in result])
    return aggregation(stream.operand, layout, kept, gone)


def aggregation(
    source: Operand, layout: Layout, kept: Sequence[Axis], gone: Sequence[Axis]
) -> Flow:
    """The mean over the positions of the axes ``gone``; ``layout`` is the result's, natural."""
    groups: list[tuple[Factor, ...]] = [(f,) for axis in kept for f in positions(axis)]
    groups += [(f,) for axis in gone for f in positions(axis)]
    count = sum(len(positions(axis)) for axis in gone)
    labels = LabelView(source, arrange(source.traced_layout, groups))
    return Aggregate(layout=layout, source=labels, count=count)
