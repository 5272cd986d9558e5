"""Which operand of an element-wise product is weights for the positions of the other one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from string import ascii_lowercase

from labeltrace.flow import NamedOperand, ProductOperands
from labeltrace.layout import Axis, Kind, Size, has_channels, has_positions, pure_positions
from labeltrace.rule_helpers.axis_names import axis_sizes, name_axes
from labeltrace.rule_helpers.product_kinds import is_score_matrix


@dataclass(frozen=True, slots=True)
class WeightedStream:
    """A stream, its weights, and the axes along which they weigh its positions."""

    stream: NamedOperand
    weights: NamedOperand
    letters: set[str]

    @property
    def has_pure_positions(self) -> bool:
        """Whether those axes of the stream are made of positions alone."""
        return all(pure_positions(self.stream.axes[letter]) for letter in self.letters)

    @property
    def keeps_features(self) -> bool:
        """Whether the stream has channels along an axis on which the weights do not depend.

        Values have features, and each score weighs all of them. A factor that scales scores has
        none.
        """
        axes = zip(self.stream.letters, self.stream.operand.traced_layout.axes, strict=True)
        return any(
            has_channels(axis) and not self.weights.varies_along(letter) for letter, axis in axes
        )


def find_weighted_streams(
    factors: ProductOperands, among: Collection[str] | None = None
) -> list[WeightedStream]:
    """The operands whose positions the other operand weighs: none, one or both.

    Args:
        factors: the operands of the product.
        among: the axes that count; None for all.
    """
    one, two, _ = name_factors(factors)
    found = (WeightedStream(a, b, _weighed_axes(a, b)) for a, b in ((one, two), (two, one)))
    if among is not None:
        found = (replace(each, letters=each.letters & set(among)) for each in found)
    return [each for each in found if each.letters]


def name_factors(factors: ProductOperands) -> tuple[NamedOperand, NamedOperand, dict[str, Size]]:
    """Both operands with letters for the product's axes, and the size of each letter."""
    rank = max(len(factors.first.shape), len(factors.second.shape))
    spelled = [
        (operand, tuple(ascii_lowercase[rank - len(operand.shape) : rank]))
        for operand in (factors.first, factors.second)
    ]
    sizes = axis_sizes(*((letters, operand.shape) for operand, letters in spelled))
    one, two = (name_axes(operand, letters, sizes) for operand, letters in spelled)
    return one, two, sizes


def _weighed_axes(stream: NamedOperand, weights: NamedOperand) -> set[str]:
    """The axes with positions of a stream that the other operand weighs.

    Constants and mixing weights weigh each axis along which they differ. Another stream weighs an
    axis where it has channels, one for each position, or if it holds one number for each pair of
    positions; where it has positions of its own it is a gate or an equal stream. Images of a batch
    are never mixed with one another.
    """
    if not stream.operand.labeled:
        return set()
    scores = not weights.operand.labeled or is_score_matrix(weights, stream)
    return {
        letter
        for letter, axis in stream.axes.items()
        if _has_positions_in_an_image(axis)
        and weights.varies_along(letter)
        and (scores or not weights.has_positions(letter))
    }


def _has_positions_in_an_image(axis: Axis) -> bool:
    return has_positions(axis) and all(
        factor.kind not in (Kind.BATCH, Kind.OPAQUE) for factor in axis
    )
