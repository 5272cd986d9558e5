"""Products of keys and values summed over positions.

Whether such a product is part of linear attention or a matrix of channel weights is known only when
the next operator uses it. With a non-linear step after it, it is channel weights (cross-covariance
attention). If queries are contracted with it directly, the two products together mix positions:
`labeltrace.rule_helpers.linear_attention`.

Until then its axes are made of opaque factors, which no view can split, and each leads back to a
run of a letter of the product (`labeltrace.flow.KeyValueProduct`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from labeltrace.flow import AxisRun, KeyValueProduct, NamedOperand, ValueFacts, Weights
from labeltrace.index_notation.parsing import Names
from labeltrace.layout import Axis, Factor, Kind, Layout, axis_size, renumbered


def keys_times_values(
    first: NamedOperand, second: NamedOperand, result: Names, axes: Sequence[Axis]
) -> Weights:
    """The flow of a product of keys and values.

    Args:
        first: keys or values.
        second: the other one.
        result: the letters of the result.
        axes: its axes, as they would be if it were weights.
    """
    parts: list[AxisRun] = []
    known: list[Axis] = []
    opaque: list[Axis] = []
    for letter, axis in zip(result, axes, strict=True):
        runs = [(index, run) for index, run in enumerate(position_runs(axis)) if run]
        parts.extend((letter, index) for index, _ in runs)
        known.extend(run for _, run in runs)
        opaque.append(tuple(Factor(axis_size(run), Kind.OPAQUE) for _, run in runs))
    product = KeyValueProduct((first, second), tuple(parts), tuple(known))
    return Weights(layout=renumbered(opaque), facts=ValueFacts(key_value_product=product))


def position_runs(axis: Axis) -> tuple[Axis, ...]:
    """The axis cut into runs: neighboring factors that are all positions, or all not.

    An axis of size one is a single, empty run.
    """
    grouped = groupby(axis, key=lambda factor: factor.is_position)
    return tuple(tuple(run) for _, run in grouped) or ((),)


def as_channel_weights(product: KeyValueProduct, layout: Layout) -> Layout:
    """The layout once a non-linear step has turned the product into weights between channels."""
    known = [
        tuple(inner for factor in axis for inner in _expand_factor(product, factor))
        for axis in layout.axes
    ]
    return renumbered(known)


def _expand_factor(product: KeyValueProduct, factor: Factor) -> Axis:
    """What an opaque factor of the product is made of."""
    return product.axes[factor.field_dim] if factor.is_position else (factor,)
