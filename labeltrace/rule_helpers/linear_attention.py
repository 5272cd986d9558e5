"""Linear attention: queries times a product of keys and values.

The two products together mix positions with `phi(q)·phi(k)^T` (contract, point 4), in time linear
in the number of positions. The first product is `labeltrace.rule_helpers.key_value_weights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from labeltrace.errors import LayoutError
from labeltrace.flow import AxisRun, Flow, KeyValueProduct, LabelView, LinearMix, NamedOperand
from labeltrace.index_notation.linear_mixing_equation import LinearMixingEquation
from labeltrace.index_notation.mixing_equation import Sizes
from labeltrace.index_notation.parsing import Axes, Names
from labeltrace.index_notation.spare_names import SpareNames
from labeltrace.layout import (
    Axis,
    Layout,
    Size,
    arrange,
    axis_size,
    channel,
    has_channels,
    has_positions,
    renumbered,
)
from labeltrace.rule_helpers.key_value_weights import position_runs

SIGNED = "queries or keys may be negative: their magnitudes are taken before they are multiplied"


def linear_mixing(
    queries: NamedOperand, context: NamedOperand, result: Names, sizes: Mapping[str, Size]
) -> Flow:
    """The flow of queries times a product of keys and values: `Norm(phi(q)·phi(k)^T)·Y`.

    Args:
        queries: the queries, a stream.
        context: the product of keys and values.
        result: the letters of the result.
        sizes: the size of each letter.

    Raises:
        LayoutError: the axes of the first product have been split or joined in a way that does not
            lead back to its letters.
    """
    products = _name_products(queries, context, result)
    layout = renumbered(
        [queries.axes.get(x, channel(sizes[x]) if x in context.axes else ()) for x in result]
    )
    labels, label_names = _values_field(products)
    rows = _rows(products, layout, result)
    exact = queries.operand.nonnegative and products.keys.operand.nonnegative
    return LinearMix(
        layout=layout,
        field_shape=tuple(rows.values()),
        source=labels,
        query=queries.operand,
        key=products.keys.operand,
        equation=LinearMixingEquation(
            query=_query_axes(products),
            key=_key_axes(products),
            labels=label_names,
            result=tuple(rows),
            heads=_heads(products, tuple(rows)),
            sizes=_known_sizes(products),
        ),
        approximation="" if exact else SIGNED,
    )


@dataclass(frozen=True, slots=True)
class _NamedProducts:
    """Both products of linear attention, with one name for each part of a letter.

    Attributes:
        queries: the queries, with letters of the second product.
        context: the product of keys and values, with letters of the second product.
        product: what the context was made of, with letters of the first product.
        keys: the side of the first product that queries are compared with.
        values: the other side.
        features: the letters of the first product that queries contract.
        names: the name of each run of each letter of the first product.
    """

    queries: NamedOperand
    context: NamedOperand
    product: KeyValueProduct
    keys: NamedOperand
    values: NamedOperand
    features: frozenset[str]
    names: Mapping[AxisRun, str]

    def slots(self, letter: str) -> list[int]:
        """The opaque factors of a letter of the context, by their place in the first product."""
        return [factor.field_dim for factor in self.context.axes.get(letter, ())]

    def name_of(self, slot: int) -> str:
        """The name of an opaque factor."""
        return self.names[self.product.parts[slot]]


def _name_products(queries: NamedOperand, context: NamedOperand, result: Names) -> _NamedProducts:
    product = context.operand.key_value_product
    assert product is not None
    features = frozenset(
        _letter(product, axis) for letter, axis in context.axes.items() if letter not in result
    )
    keys, values = _keys_and_values(product, features)
    names = _part_names(queries, context, product, (keys, values))
    return _NamedProducts(queries, context, product, keys, values, features, names)


def _letter(product: KeyValueProduct, axis: Axis) -> str:
    """The letter of the first product that an axis of its result is."""
    if len(axis) != 1 or not axis[0].is_position:
        raise LayoutError("an axis of keys times values has been split or joined")
    return product.parts[axis[0].field_dim][0]


def _keys_and_values(
    product: KeyValueProduct, features: frozenset[str]
) -> tuple[NamedOperand, NamedOperand]:
    """The side that has the features which queries contract, and the other one."""
    for keys, values in (product.sides, product.sides[::-1]):
        if all(letter in keys.axes and letter not in values.axes for letter in features):
            return keys, values
    raise LayoutError("queries are contracted with an axis that is not the keys' alone")


def _part_names(
    queries: NamedOperand,
    context: NamedOperand,
    product: KeyValueProduct,
    sides: tuple[NamedOperand, NamedOperand],
) -> dict[AxisRun, str]:
    """A name for each run of each letter of keys and values.

    A run that the second product has is named by its letter there; the others get new letters.
    """
    spare = SpareNames({*context.letters, *queries.letters})
    names: dict[AxisRun, str] = {}
    for letter, axis in context.axes.items():
        for factor in axis:
            part = product.parts[factor.field_dim]
            names[part] = letter if len(axis) == 1 else spare.fresh()
    for side in sides:
        for letter in side.letters:
            for index, _ in enumerate(position_runs(side.axes.get(letter, ()))):
                if (letter, index) not in names:
                    names[letter, index] = spare.fresh()
    return names


# The parts of the equation.


def _query_axes(products: _NamedProducts) -> Axes:
    axes: list[Names] = []
    for letter in products.queries.letters:
        slots = products.slots(letter)
        axes.append(tuple(map(products.name_of, slots)) if len(slots) > 1 else (letter,))
    return tuple(axes)


def _key_axes(products: _NamedProducts) -> Axes:
    axes = ((letter, products.keys.axes.get(letter, ())) for letter in products.keys.letters)
    return tuple(
        tuple(products.names[letter, index] for index, _ in enumerate(position_runs(axis)))
        for letter, axis in axes
    )


def _values_field(products: _NamedProducts) -> tuple[LabelView, Names]:
    """The labels of the values with a dimension for each run of positions, and their names."""
    values = products.values
    found = [
        (products.names[letter, index], run)
        for letter in values.letters
        for index, run in enumerate(position_runs(values.axes.get(letter, ())))
        if has_positions(run)
    ]
    arrangement = arrange(values.operand.traced_layout, [run for _, run in found])
    return LabelView(values.operand, arrangement), tuple(name for name, _ in found)


def _rows(products: _NamedProducts, layout: Layout, result: Names) -> dict[str, Size]:
    """The names of the result's positions, and their sizes."""
    rows: dict[str, Size] = {}
    for letter, axis in zip(result, layout.axes, strict=True):
        if not has_positions(axis):
            continue
        if letter not in products.context.axes:
            rows[letter] = axis_size(axis)
            continue
        for slot in products.slots(letter):
            part = products.product.axes[slot]
            if has_positions(part):
                rows[products.name_of(slot)] = axis_size(part)
    return rows


def _heads(products: _NamedProducts, rows: Names) -> Names:
    """The names whose matrices are averaged: heads of keys, then heads that only queries have."""
    of_keys = [
        products.names[letter, index]
        for letter, index in products.product.parts
        if letter in products.keys.axes and letter not in products.features
    ]
    of_queries = [
        letter
        for letter in products.queries.letters
        if letter not in products.context.axes
        and has_channels(products.queries.axes.get(letter, ()))
    ]
    return (*(name for name in of_keys if name not in rows), *of_queries)


def _known_sizes(products: _NamedProducts) -> Sizes:
    """The sizes of the first product's names; that of a dynamic batch is not known."""
    sizes = (
        (products.name_of(slot), axis_size(axis)) for slot, axis in enumerate(products.product.axes)
    )
    return tuple((name, size) for name, size in sizes if isinstance(size, int))
