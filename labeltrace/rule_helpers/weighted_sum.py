"""Weighing: a stream times mixing weights, before it is summed over positions.

A product is point-wise, and what the stream is multiplied by may be a mere gate (contract, point
8).  If a sum over positions follows, the two steps are a contraction, as one ``einsum`` would be:
values times weights, summed over the tokens (point 4).  So a product keeps its factors until a sum
shows what they are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from string import ascii_lowercase

from labeltrace.errors import LayoutError
from labeltrace.flow import Factors, Flow, Operand
from labeltrace.layout import Kind, has_channels, has_positions, pure_positions
from labeltrace.rule_helpers.contraction import contract, is_inner, is_pairwise
from labeltrace.rule_helpers.named_operand import Side, side_of, sizes_of

UNWEIGHTED = "it was multiplied by weights for its positions, which are not applied along all axes"

UNORDERED = (
    "values times weights are summed over positions after another step; sum them right after the "
    "product, or write both as one matmul or einsum"
)


def factors_of(first: Operand, second: Operand) -> Factors | None:
    """The factors of a product of two streams, or if one of them weighs the other's positions.

    Weights that are in one of the two already come first.
    """
    for operand in (first, second):
        if operand.factors is not None and _weighings(operand.factors):
            return operand.factors.changed()
    factors = Factors(replace(first, factors=None), replace(second, factors=None))
    streams = first.labelled and second.labelled
    return factors if streams or _weighings(factors) else None


def unweighted(product: Operand, summed: Collection[int]) -> str:
    """Why a plain mean over the axes ``summed`` of an activation is none; empty if it is one."""
    factors = product.factors
    if factors is None:
        return ""
    found = _weighings(factors, [_letters(product)[dim] for dim in summed])
    if not factors.at_hand:  # the axes are not theirs any more
        moved = any(has_positions(product.positions.axes[dim]) for dim in summed)
        found = _weighings(factors) if moved else []
    return UNWEIGHTED if found else ""


def is_score(product: Operand, summed: Collection[int]) -> bool:
    """Whether a sum over the axes ``summed`` of two streams' product is their inner product."""
    factors, letters = product.factors, _letters(product)
    if factors is None or not factors.at_hand:
        return False
    streams = factors.first.labelled and factors.second.labelled
    kept = tuple(letters[dim] for dim in range(len(letters)) if dim not in summed)
    one, two, sizes = _sides(factors)
    return streams and is_inner(one, two, kept, sizes)


def weighed_sum(product: Operand, summed: Collection[int]) -> Flow | None:
    """The sum over the axes ``summed`` of a stream times weights: ``Norm(W)·Y``.

    Those axes are gone from the result.  None where there are no weights along the axes, and where
    they vary along some of them only.

    Raises:
        LayoutError: features times weights, with another step in between, are taken for weights.
    """
    factors, letters = product.factors, _letters(product)
    if factors is None:
        return None
    moved = {letters[dim] for dim in summed if has_positions(product.positions.axes[dim])}
    if not factors.at_hand:
        if moved and product.is_weights and any(one.of_features for one in _weighings(factors)):
            raise LayoutError(UNORDERED)
        return None
    found = _weighings(factors, [letters[dim] for dim in summed])
    if len(found) != 1 or found[0].letters != moved or not found[0].is_apart:
        return None
    if product.is_weights and not found[0].of_features:
        return None
    kept = [dim for dim in range(len(letters)) if dim not in summed]
    stream, weights = found[0].stream, found[0].weights
    texts = (" ".join(side.letters) for side in (stream, weights))
    notation = f"{', '.join(texts)} -> {' '.join(letters[dim] for dim in kept)}"
    sizes = tuple(product.shape[dim] for dim in kept)
    return contract(notation, stream.operand, weights.operand, sizes)


@dataclass(frozen=True, slots=True)
class _Weighing:
    """A stream, its weights, and the axes along which they weigh its positions."""

    stream: Side
    weights: Side
    letters: set[str]

    @property
    def is_apart(self) -> bool:
        """Whether those axes of the stream are made of positions alone."""
        return all(pure_positions(self.stream.axes[letter]) for letter in self.letters)

    @property
    def of_features(self) -> bool:
        """Whether the stream has channels along an axis of which the weights have nothing.

        Values have features, and each score weighs all of them; what scales scores has none.
        """
        axes = zip(self.stream.letters, self.stream.operand.positions.axes, strict=True)
        return any(has_channels(axis) and not self.weights.differs(letter) for letter, axis in axes)


def _weighings(factors: Factors, among: Collection[str] | None = None) -> list[_Weighing]:
    """Either factor as the stream that the other one weighs, where it does along such letters."""
    one, two, _ = _sides(factors)
    found = (_Weighing(a, b, _weighed(a, b)) for a, b in ((one, two), (two, one)))
    chosen = (
        each if among is None else _Weighing(each.stream, each.weights, each.letters & set(among))
        for each in found
    )
    return [each for each in chosen if each.letters]


def _sides(factors: Factors) -> tuple[Side, Side, dict[str, int]]:
    """Both factors with the letters of the product's axes, and the size of each letter."""
    rank = max(len(factors.first.shape), len(factors.second.shape))
    spelled = [
        (operand, tuple(ascii_lowercase[rank - len(operand.shape) : rank]))
        for operand in (factors.first, factors.second)
    ]
    sizes = sizes_of(*((letters, operand.shape) for operand, letters in spelled))
    one, two = (side_of(operand, letters, sizes) for operand, letters in spelled)
    return one, two, sizes


def _weighed(stream: Side, weights: Side) -> set[str]:
    """The axes with positions of the stream along which the other factor are weights for them.

    Constants and mixing weights are, wherever they differ.  Another stream is where it has
    channels, one for each of the positions, or if it holds one number for each pair of positions.
    With positions of its own there it is a gate or an equal otherwise.  From image to image nothing
    is mixed.
    """
    if not stream.operand.labelled:
        return set()
    return {
        letter
        for letter, axis in stream.axes.items()
        if has_positions(axis) and all(factor.kind is not Kind.BATCH for factor in axis)
        if weights.differs(letter)
        if not weights.has_positions(letter)
        or not weights.operand.labelled
        or is_pairwise(weights, stream)
    }


def _letters(product: Operand) -> str:
    return ascii_lowercase[: len(product.shape)]
