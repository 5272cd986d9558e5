"""The flow of each kind of product; `labeltrace.rule_helpers.product_kinds` decides the kind.

Every function takes both operands, the stream first, the names of the result and their sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from labeltrace.errors import LayoutError
from labeltrace.flow import Constant, ContractedStreams, Flow, Mix, NamedOperand, Operation, Weights
from labeltrace.index_notation.parsing import Names
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    Size,
    axis_size,
    channel,
    is_repeated,
    renumbered,
)
from labeltrace.rule_helpers.aggregation import aggregation
from labeltrace.rule_helpers.elementwise import relayout, with_layout
from labeltrace.rule_helpers.elementwise_product import product
from labeltrace.rule_helpers.key_value_weights import keys_times_values
from labeltrace.rule_helpers.linear_attention import linear_mixing
from labeltrace.rule_helpers.matrix_mixing import plan_mixing
from labeltrace.rule_helpers.output_facts import (
    after_nonlinear,
    with_key_features,
    with_origins,
)
from labeltrace.rule_helpers.own_statistics import reduced_origins, statistics_of_channels
from labeltrace.rule_helpers.product_kinds import (
    ProductKind,
    contracted_positions,
    is_inner_product,
)
from labeltrace.rule_helpers.result_layouts import (
    kind_of_new_axis,
    surviving_layout,
    weights_layout,
)

Sizes = Mapping[str, Size]
ProductFlow = Callable[[NamedOperand, NamedOperand, Names, Sizes], Flow]

TWO_STEP_ATTENTION = (
    "queries choose among features whose labels were gathered over the tokens and averaged over "
    "heads before: the two mixings are taken one after the other"
)

CROSS_SAMPLE = (
    "images of a batch are mixed with one another: source k is taken to be the same in all of them"
)


def constant(first: NamedOperand, second: NamedOperand, result: Names, sizes: Sizes) -> Flow:
    """Neither operand comes from the image."""
    return Constant()


def weights(first: NamedOperand, second: NamedOperand, result: Names, sizes: Sizes) -> Flow:
    """Weights times a constant or other weights are weights.

    Raises:
        LayoutError: one of them is keys times values, whose labels would be lost.
    """
    if first.operand.key_value_product is not None or second.operand.key_value_product is not None:
        raise LayoutError(
            "a product of keys and values, summed over positions, is contracted with something "
            "that has no label of its own; queries that come from the image would mix positions"
        )
    traced = [side for side in (first, second) if side.operand.traced]
    return Weights(layout=weights_layout((*traced, first, second), result, sizes))


def scores(first: NamedOperand, second: NamedOperand, result: Names, sizes: Sizes) -> Flow:
    """Queries times keys are weights."""
    layout = weights_layout((first, second), result, sizes)
    return Weights(layout=layout, contracted=ContractedStreams((first, second), result))


def keys_by_values(first: NamedOperand, second: NamedOperand, result: Names, sizes: Sizes) -> Flow:
    """A sum over positions of a product: what it is shows only later."""
    axes = weights_layout((first, second), result, sizes).axes
    product = keys_times_values(first, second, result, axes)
    return replace(product, contracted=ContractedStreams((first, second), result))


def channel_mixing(stream: NamedOperand, matrix: NamedOperand, result: Names, sizes: Sizes) -> Flow:
    """The stream's label stays; letters that only the matrix has are new channels or copies."""
    new = kind_of_new_axis(stream, result)
    axes: list[Axis] = []
    for letter in result:
        if letter in stream.axes:
            axes.append(stream.axes[letter])
        elif matrix.has_positions(letter):
            axes.append((Factor(sizes[letter], Kind.REPEATED),))
        else:
            axes.append((Factor(sizes[letter], new),))
    flow = relayout(stream.operand, Layout(tuple(axes)), operation=Operation.CHANNEL_MIXING)
    if not matrix.operand.facts.is_uniform or not stream.operand.labeled:
        return flow
    return with_origins(flow, statistics_of_channels(stream.operand))


def spatial_mixing(stream: NamedOperand, matrix: NamedOperand, result: Names, sizes: Sizes) -> Flow:
    """`Norm(W)·Y`; if the rows are features of keys, keys times values as well."""
    moved = contracted_positions(stream, result)
    stream = _drop_repeated_axes(stream, matrix)
    plan = plan_mixing(stream, matrix, result, sizes)
    gathered = _gathers_features(stream, matrix, result)
    axes = weights_layout((stream, matrix), result, sizes).axes
    mix = Mix(
        as_weights=keys_times_values(matrix, stream, result, axes) if gathered else None,
        approximation=_reason_approximate(stream, matrix, moved),
        layout=plan.layout,
        field_shape=plan.field_shape,
        source=plan.labels,
        weights=matrix.operand,
        equation=plan.equation,
    )
    if matrix.operand.facts.is_uniform:
        kept = [stream.axes.get(letter, sizes[letter]) for letter in result]
        mix = with_origins(mix, reduced_origins(stream.operand, kept))
    return with_key_features(mix, gathered)


def contracted_mean(
    stream: NamedOperand, matrix: NamedOperand, result: Names, sizes: Sizes
) -> Flow:
    """Positions that are contracted together with channels, or summed up: their mean.

    Raises:
        LayoutError: the matrix is weights for these positions, so that no mean is meant.
    """
    if matrix.operand.traced and contracted_positions(stream, result) & matrix.positions:
        raise LayoutError(
            "positions and channels of one axis are contracted with mixing weights: "
            f"{stream.operand.layout} by {matrix.operand.layout}"
        )
    kept = [stream.axes.get(letter, ()) for letter in result]
    gone = [axis for letter, axis in stream.axes.items() if letter not in result]
    layout = renumbered([stream.axes.get(letter, channel(sizes[letter])) for letter in result])
    flow = aggregation(stream.operand, layout, kept, gone)
    if not matrix.operand.facts.is_uniform:
        return flow
    return with_origins(flow, reduced_origins(stream.operand, kept))


def gated(stream: NamedOperand, gate: NamedOperand, result: Names, sizes: Sizes) -> Flow:
    """The stream's label stays; that of the gate, which lacks some of its positions, is ignored."""
    return _as_score(channel_mixing(stream, gate, result, sizes), stream, gate, result, sizes)


def equal_streams(first: NamedOperand, second: NamedOperand, result: Names, sizes: Sizes) -> Flow:
    """An element-wise product, once the contracted channels are gone."""
    flow = product(
        with_layout(first.operand, surviving_layout(first, result)),
        with_layout(second.operand, surviving_layout(second, result)),
        tuple(sizes[letter] for letter in result),
        operation=Operation.CHANNEL_MIXING,
    )
    return _as_score(flow, first, second, result, sizes)


FLOWS: Final[Mapping[ProductKind, ProductFlow]] = MappingProxyType(
    {
        ProductKind.CONSTANT: constant,
        ProductKind.WEIGHTS: weights,
        ProductKind.CHANNEL_MIXING: channel_mixing,
        ProductKind.SPATIAL_MIXING: spatial_mixing,
        ProductKind.AGGREGATION: contracted_mean,
        ProductKind.SCORES: scores,
        ProductKind.KEYS_TIMES_VALUES: keys_by_values,
        ProductKind.LINEAR_ATTENTION: linear_mixing,
        ProductKind.GATED: gated,
        ProductKind.EQUAL_STREAMS: equal_streams,
    }
)
"""How the labels of each kind of product move."""


def _as_score(
    flow: Flow, first: NamedOperand, second: NamedOperand, result: Names, sizes: Sizes
) -> Flow:
    """The flow of two streams' product, which is a gate if it is their inner product."""
    is_score = is_inner_product(first, second, result, sizes)
    return after_nonlinear(flow, is_gate=True) if is_score else flow


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


def _reason_approximate(stream: NamedOperand, matrix: NamedOperand, moved: Collection[str]) -> str:
    """Why mixing by a matrix is not exact; empty where it is."""
    if any(factor.kind is Kind.BATCH for letter in moved for factor in stream.axes[letter]):
        return CROSS_SAMPLE
    return TWO_STEP_ATTENTION if stream.operand.holds_key_features and matrix.operand.traced else ""
