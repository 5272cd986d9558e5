"""Pending products: keys times values, summed over positions, before it is clear what they are.

See :mod:`labeltrace.rule_helpers.linear_attention`.
"""

from __future__ import annotations

from itertools import groupby

from labeltrace.flow import KeyValueProduct
from labeltrace.layout import Axis, Factor, Layout, renumbered


def position_runs(axis: Axis) -> tuple[Axis, ...]:
    """The runs of an axis; an axis of size one is a single, empty run."""
    grouped = groupby(axis, key=lambda factor: factor.is_position)
    return tuple(tuple(run) for _, run in grouped) or ((),)


def as_channel_weights(product: KeyValueProduct, layout: Layout) -> Layout:
    """The layout once a non-linear step has made weights of the product."""
    known = [
        tuple(inner for factor in axis for inner in _expand_factor(product, factor))
        for axis in layout.axes
    ]
    return renumbered(known)


def _expand_factor(product: KeyValueProduct, factor: Factor) -> Axis:
    return product.axes[factor.field_dim] if factor.is_position else (factor,)
