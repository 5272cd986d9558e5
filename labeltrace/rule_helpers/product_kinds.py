"""What a product of two tensors is: decided by which factors it contracts, before any flow is made.

A product is an equation (`"... i, o i -> ... o"`) and two operands. Each operand is a constant, a
stream (it carries labels) or mixing weights (it comes from the image and carries none). The page
`docs/products.md` has the same table as `ProductKind`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from labeltrace.flow import NamedOperand
from labeltrace.index_notation.parsing import Names
from labeltrace.layout import Size, has_channels


class ProductKind(Enum):
    """The kinds of products, with the point of the contract that each follows from."""

    CONSTANT = "constant"
    """Neither operand comes from the image: two parameters of a re-parameterized layer."""

    WEIGHTS = "weights"
    """Mixing weights times a constant or other weights (point 9): heads mixed by talking heads."""

    CHANNEL_MIXING = "channel mixing"
    """A stream, of which channels alone are contracted (point 5): a linear layer on features."""

    SPATIAL_MIXING = "spatial mixing"
    """A stream, of which positions are contracted with a matrix (point 4): attention times values,
    a linear layer on tokens."""

    AGGREGATION = "aggregation"
    """A stream, of which positions are contracted that a matrix does not weigh one by one
    (point 7): patch merging, a classifier on flattened features."""

    SCORES = "scores"
    """Two streams with positions of their own in the result (point 9): queries times keys."""

    KEYS_TIMES_VALUES = "keys times values"
    """Two streams, summed over positions that both have (points 4 and 9): the first product of
    linear attention, the channels by channels of cross-covariance attention."""

    LINEAR_ATTENTION = "linear attention"
    """A stream times keys times values (point 4): the second product of linear attention."""

    GATED = "gated"
    """Two streams, one of which has no positions of its own (point 8): a query of the whole image
    times the features of each token."""

    EQUAL_STREAMS = "equal streams"
    """Two streams on the same positions (point 8): a bilinear layer."""


def classify_product(
    first: NamedOperand, second: NamedOperand, result: Names, sizes: Mapping[str, Size]
) -> ProductKind:
    """The kind of the product of two operands.

    Args:
        first: one operand, with its axes by name.
        second: the other operand. The order of the two makes no difference.
        result: the names of the result's axes; all other names are contracted.
        sizes: the size of each name.
    """
    stream, other = stream_first(first, second, result)
    if not stream.operand.labeled:
        traced = stream.operand.traced or other.operand.traced
        return ProductKind.WEIGHTS if traced else ProductKind.CONSTANT
    moved = contracted_positions(stream, result)
    if other.operand.labeled and not moved:
        return _kind_of_kept_streams(stream, other, result)
    if other.operand.labeled and _are_keys_and_values(stream, other, result):
        return ProductKind.KEYS_TIMES_VALUES
    if moved:
        weighed = all(_weighs_positions(other, stream, letter) for letter in moved)
        return ProductKind.SPATIAL_MIXING if weighed else ProductKind.AGGREGATION
    if other.operand.key_value_product is not None:
        return ProductKind.LINEAR_ATTENTION
    return ProductKind.CHANNEL_MIXING


def stream_first(
    first: NamedOperand, second: NamedOperand, result: Names
) -> tuple[NamedOperand, NamedOperand]:
    """The operand whose labels the product keeps or moves, then the other one.

    Of two streams that is the one that is weighed or gated by the other. Where neither is, they
    stay in their order.
    """
    if not (first.operand.labeled and second.operand.labeled):
        return (second, first) if second.operand.labeled else (first, second)
    one, two = contracted_positions(first, result), contracted_positions(second, result)
    if one & two:
        swapped = is_score_matrix(first, second) and not is_score_matrix(second, first)
    elif one or two:
        swapped = not one
    else:
        swapped = not _own_positions(first, second, result)
        swapped = swapped and bool(_own_positions(second, first, result))
    return (second, first) if swapped else (first, second)


def contracted_positions(side: NamedOperand, result: Names) -> set[str]:
    """The contracted axes along which the operand has positions."""
    return side.positions.difference(result)


def is_inner_product(
    first: NamedOperand, second: NamedOperand, result: Names, sizes: Mapping[str, Size]
) -> bool:
    """Whether a product of two streams contracts all channels that both have, except heads.

    The result is a score, which scales what it multiplies (contract, points 8 and 9): the
    normalizer of linear attention is one, a query times the sum of all keys.
    """

    def shared(letter: str) -> bool:
        return all(has_channels(side.axes.get(letter, ())) for side in (first, second))

    places = first.positions | second.positions
    left = [letter for letter in result if sizes[letter] > 1 and letter not in places]
    contracted = [letter for letter in sizes if letter not in result and letter not in places]
    return any(map(shared, contracted)) and all(map(shared, left))


def is_score_matrix(one: NamedOperand, other: NamedOperand) -> bool:
    """Whether a stream is a number for each pair of its own and the other's positions.

    Examples are scores without a softmax, and a kernel of distances. The other stream has features.
    """
    own = {letter for letter in one.positions if not other.varies_along(letter)}
    features = any(map(has_channels, other.axes.values()))
    return bool(own) and features and not any(map(has_channels, one.axes.values()))


def _kind_of_kept_streams(first: NamedOperand, second: NamedOperand, result: Names) -> ProductKind:
    """The kind of a product of two streams that contracts no positions."""
    one, two = _own_positions(first, second, result), _own_positions(second, first, result)
    if one and two:
        return ProductKind.SCORES
    return ProductKind.GATED if one or two else ProductKind.EQUAL_STREAMS


def _own_positions(side: NamedOperand, other: NamedOperand, result: Names) -> set[str]:
    """The result's axes along which the operand has positions and the other one has none."""
    return (side.positions - other.positions).intersection(result)


def _are_keys_and_values(stream: NamedOperand, other: NamedOperand, result: Names) -> bool:
    """Whether two streams are summed over positions that both have, as streams of features."""
    summed = contracted_positions(stream, result) & contracted_positions(other, result)
    return bool(summed) and not is_score_matrix(other, stream)


def _weighs_positions(matrix: NamedOperand, stream: NamedOperand, letter: str) -> bool:
    """Whether a matrix has the axis, and it holds positions of the stream alone, no channels."""
    return letter in matrix.axes and not has_channels(stream.axes[letter])
