"""Linear attention: keys times values, summed over positions, then queries times that.

The first product has no positions of its own.  What it is shows only later: with a non-linear step
after it, it is channel weights (cross-covariance attention); contracted with queries as it is, the
two products together mix positions with ``phi(q)·phi(k)^T`` (contract, point 4).  Until then it is
pending (:mod:`labeltrace.rule_helpers.key_value_product`): its axes are opaque factors that lead back to the letters of
the first product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labeltrace.errors import LayoutError
from labeltrace.flow import (
    AxisRun,
    Flow,
    KeyValueProduct,
    LabelView,
    LinearMix,
    NamedOperand,
    ValueFacts,
    Weights,
)
from labeltrace.index_notation.linear_mixing_equation import LinearMixingEquation
from labeltrace.index_notation.parsing import Axes, Names
from labeltrace.index_notation.spare_names import SpareNames
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    arrange,
    axis_size,
    channel,
    has_channels,
    has_positions,
    is_dynamic,
    renumbered,
)
from labeltrace.rule_helpers.key_value_product import position_runs

SIGNED = "queries or keys may be negative: their magnitudes are taken before they are multiplied"


def keys_times_values(
    first: NamedOperand, second: NamedOperand, result: Names, axes: Sequence[Axis]
) -> Weights:
    """The first product; ``axes`` are those of its result."""
    parts: list[AxisRun] = []
    inside: list[Axis] = []
    opaque: list[Axis] = []
    for letter, axis in zip(result, axes, strict=True):
        whole = [(index, run) for index, run in enumerate(position_runs(axis)) if run]
        parts.extend((letter, index) for index, _ in whole)
        inside.extend(run for _, run in whole)
        opaque.append(tuple(Factor(axis_size(run), Kind.BATCH) for _, run in whole))
    pending = KeyValueProduct((first, second), tuple(parts), tuple(inside))
    return Weights(layout=renumbered(opaque), facts=ValueFacts(key_value_product=pending))


def linear_mixing(
    queries: NamedOperand, context: NamedOperand, result: Names, sizes: Mapping[str, int]
) -> Flow:
    """The second product: ``Norm(phi(q)·phi(k)^T)·Y``.

    Raises:
        LayoutError: the axes of the first product have been taken apart or joined in a way that
            does not lead back to its letters.
    """
    pending = context.operand.key_value_product
    assert pending is not None
    features = {
        _letter(pending, axis) for letter, axis in context.axes.items() if letter not in result
    }
    keys, values = _keys_and_values(pending, features)
    names = _part_names(queries, context, pending, keys, values)
    labels, label_names = _values_field(values, names)
    layout = renumbered(
        [queries.axes.get(x, channel(sizes[x]) if x in context.axes else ()) for x in result]
    )
    rows = [
        name
        for letter, axis in zip(result, layout.axes, strict=True)
        if has_positions(axis)
        for name in _row_names(letter, context, pending, names)
    ]
    averaged = [
        names[part]
        for part in pending.parts
        if part[0] in keys.axes and part[0] not in features and names[part] not in rows
    ]
    averaged += _own_channels(queries, context)
    exact = queries.operand.nonnegative and keys.operand.nonnegative
    return LinearMix(
        layout=layout,
        field_shape=_stored(layout, context, pending, result),
        source=labels,
        query=queries.operand,
        key=keys.operand,
        equation=LinearMixingEquation(
            query=_query_axes(queries, context, pending, names),
            key=_key_axes(keys, names),
            labels=label_names,
            result=tuple(rows),
            heads=tuple(averaged),
            sizes=_known_sizes(pending, names),
        ),
        approximation="" if exact else SIGNED,
    )


def _letter(pending: KeyValueProduct, axis: Axis) -> str:
    """The letter of the first product that an axis stands for."""
    if len(axis) != 1 or not axis[0].is_position:
        raise LayoutError("an axis of keys times values has been split or joined")
    return pending.parts[axis[0].field_dim][0]


def _keys_and_values(
    pending: KeyValueProduct, features: set[str]
) -> tuple[NamedOperand, NamedOperand]:
    """The side that has the features which queries contract, and the other one."""
    for keys, values in (pending.sides, pending.sides[::-1]):
        if all(letter in keys.axes and letter not in values.axes for letter in features):
            return keys, values
    raise LayoutError("queries are contracted with an axis that is not the keys' alone")


def _part_names(
    queries: NamedOperand,
    context: NamedOperand,
    pending: KeyValueProduct,
    keys: NamedOperand,
    values: NamedOperand,
) -> dict[AxisRun, str]:
    """A name in the notation for every part of the letters of keys and values.

    What the second product has goes by its letters there; the rest gets letters of its own.
    """
    spare = SpareNames({*context.letters, *queries.letters})
    names: dict[AxisRun, str] = {}
    for letter, axis in context.axes.items():
        for factor in axis:
            part = pending.parts[factor.field_dim]
            names[part] = letter if len(axis) == 1 else spare.fresh()
    for side in (keys, values):
        for letter in side.letters:
            for index, _ in enumerate(position_runs(side.axes.get(letter, ()))):
                if (letter, index) not in names:
                    names[letter, index] = spare.fresh()
    return names


def _values_field(values: NamedOperand, names: Mapping[AxisRun, str]) -> tuple[LabelView, Names]:
    """The labels of the values with a dimension for each run of positions, and their names."""
    found = [
        (names[letter, index], run)
        for letter in values.letters
        for index, run in enumerate(position_runs(values.axes.get(letter, ())))
        if has_positions(run)
    ]
    arrangement = arrange(values.operand.traced_layout, [run for _, run in found])
    return LabelView(values.operand, arrangement), tuple(name for name, _ in found)


def _row_names(
    letter: str, context: NamedOperand, pending: KeyValueProduct, names: Mapping[AxisRun, str]
) -> list[str]:
    """The names of the positions behind a letter of the second product."""
    if letter not in context.axes:
        return [letter]
    slots = [factor.field_dim for factor in context.axes[letter]]
    return [names[pending.parts[slot]] for slot in slots if has_positions(pending.axes[slot])]


def _own_channels(queries: NamedOperand, context: NamedOperand) -> list[str]:
    """Heads of the queries that share their keys and values."""
    own = (letter for letter in queries.letters if letter not in context.axes)
    return [letter for letter in own if has_channels(queries.axes.get(letter, ()))]


def _query_axes(
    queries: NamedOperand,
    context: NamedOperand,
    pending: KeyValueProduct,
    names: Mapping[AxisRun, str],
) -> Axes:
    axes: list[Names] = []
    for letter in queries.letters:
        parts = [names[pending.parts[factor.field_dim]] for factor in context.axes.get(letter, ())]
        axes.append(tuple(parts) if len(parts) > 1 else (letter,))
    return tuple(axes)


def _key_axes(keys: NamedOperand, names: Mapping[AxisRun, str]) -> Axes:
    runs = ((letter, position_runs(keys.axes.get(letter, ()))) for letter in keys.letters)
    return tuple(
        tuple(names[letter, index] for index, _ in enumerate(found)) for letter, found in runs
    )


def _stored(
    layout: Layout, context: NamedOperand, pending: KeyValueProduct, result: Names
) -> tuple[int, ...]:
    """The sizes of the field's dimensions: one a row letter or part."""
    sizes: list[int] = []
    for letter, axis in zip(result, layout.axes, strict=True):
        if not has_positions(axis):
            continue
        if letter not in context.axes:
            sizes.append(axis_size(axis))
            continue
        slots = [factor.field_dim for factor in context.axes[letter]]
        sizes.extend(axis_size(pending.axes[s]) for s in slots if has_positions(pending.axes[s]))
    return tuple(sizes)


def _known_sizes(
    pending: KeyValueProduct, names: Mapping[AxisRun, str]
) -> tuple[tuple[str, int], ...]:
    """The sizes of the names, but for that of a dynamic batch."""
    sizes = [(names[part], axis_size(pending.axes[i])) for i, part in enumerate(pending.parts)]
    return tuple(
        (name, size) for name, size in sizes if not is_dynamic(size) and name in names.values()
    )
