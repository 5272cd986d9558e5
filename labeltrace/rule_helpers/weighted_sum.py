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
from labeltrace.flow import Flow, NamedOperand, Operand, ProductOperands
from labeltrace.index_notation.contraction_equation import ContractionEquation
from labeltrace.layout import Kind, has_channels, has_positions, pure_positions
from labeltrace.rule_helpers.contraction import contract, is_inner_product, is_score_matrix
from labeltrace.rule_helpers.named_operand import axis_sizes, name_axes

UNWEIGHTED = "it was multiplied by weights for its positions, which are not applied along all axes"

STEP_BETWEEN = (
    "values times weights are summed over positions after another step; sum them right after the "
    "product, or write both as one matmul or einsum"
)


def factors_of(first: Operand, second: Operand) -> ProductOperands | None:
    """The factors of a product of two streams, or if one of them weighs the other's positions.

    Weights that are in one of the two already come first.
    """
    for operand in (first, second):
        if operand.product is not None and find_weighted_streams(operand.product):
            return operand.product.after_other_step()
    factors = ProductOperands(_without_product(first), _without_product(second))
    streams = first.labelled and second.labelled
    return factors if streams or find_weighted_streams(factors) else None


def _without_product(operand: Operand) -> Operand:
    """The operand without the operands of a product that it is itself."""
    return replace(operand, facts=operand.facts.with_product(None))


def reason_mean_is_wrong(product: Operand, summed: Collection[int]) -> str:
    """Why a plain mean over the axes ``summed`` of an activation is none; empty if it is one."""
    factors = product.product
    if factors is None:
        return ""
    found = find_weighted_streams(factors, [_letters(product)[dim] for dim in summed])
    if not factors.axes_unchanged:  # the axes are not theirs any more
        moved = any(has_positions(product.traced_layout.axes[dim]) for dim in summed)
        found = find_weighted_streams(factors) if moved else []
    return UNWEIGHTED if found else ""


def is_score(product: Operand, summed: Collection[int]) -> bool:
    """Whether a sum over the axes ``summed`` of two streams' product is their inner product."""
    factors, letters = product.product, _letters(product)
    if factors is None or not factors.axes_unchanged:
        return False
    streams = factors.first.labelled and factors.second.labelled
    kept = tuple(letters[dim] for dim in range(len(letters)) if dim not in summed)
    one, two, sizes = _sides(factors)
    return streams and is_inner_product(one, two, kept, sizes)


def weighted_sum(product: Operand, summed: Collection[int]) -> Flow | None:
    """The sum over the axes ``summed`` of a stream times weights: ``Norm(W)·Y``.

    Those axes are gone from the result.  None where there are no weights along the axes, and where
    they vary along some of them only.

    Raises:
        LayoutError: features times weights, with another step in between, are taken for weights.
    """
    factors, letters = product.product, _letters(product)
    if factors is None:
        return None
    moved = {letters[dim] for dim in summed if has_positions(product.traced_layout.axes[dim])}
    if not factors.axes_unchanged:
        if (
            moved
            and product.is_weights
            and any(one.keeps_features for one in find_weighted_streams(factors))
        ):
            raise LayoutError(STEP_BETWEEN)
        return None
    found = find_weighted_streams(factors, [letters[dim] for dim in summed])
    if len(found) != 1 or found[0].letters != moved or not found[0].has_pure_positions:
        return None
    if product.is_weights and not found[0].keeps_features:
        return None
    kept = [dim for dim in range(len(letters)) if dim not in summed]
    stream, weights = found[0].stream, found[0].weights
    equation = ContractionEquation(
        stream.letters, weights.letters, tuple(letters[dim] for dim in kept)
    )
    sizes = tuple(product.shape[dim] for dim in kept)
    return contract(equation, stream.operand, weights.operand, sizes)


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
        """Whether the stream has channels along an axis of which the weights have nothing.

        Values have features, and each score weighs all of them; what scales scores has none.
        """
        axes = zip(self.stream.letters, self.stream.operand.traced_layout.axes, strict=True)
        return any(
            has_channels(axis) and not self.weights.varies_along(letter) for letter, axis in axes
        )


def find_weighted_streams(
    factors: ProductOperands, among: Collection[str] | None = None
) -> list[WeightedStream]:
    """Either factor as the stream that the other one weighs, where it does along such letters."""
    one, two, _ = _sides(factors)
    found = (WeightedStream(a, b, _weighed(a, b)) for a, b in ((one, two), (two, one)))
    chosen = (
        each
        if among is None
        else WeightedStream(each.stream, each.weights, each.letters & set(among))
        for each in found
    )
    return [each for each in chosen if each.letters]


def _sides(factors: ProductOperands) -> tuple[NamedOperand, NamedOperand, dict[str, int]]:
    """Both factors with the letters of the product's axes, and the size of each letter."""
    rank = max(len(factors.first.shape), len(factors.second.shape))
    spelled = [
        (operand, tuple(ascii_lowercase[rank - len(operand.shape) : rank]))
        for operand in (factors.first, factors.second)
    ]
    sizes = axis_sizes(*((letters, operand.shape) for operand, letters in spelled))
    one, two = (name_axes(operand, letters, sizes) for operand, letters in spelled)
    return one, two, sizes


def _weighed(stream: NamedOperand, weights: NamedOperand) -> set[str]:
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
        if weights.varies_along(letter)
        if not weights.has_positions(letter)
        or not weights.operand.labelled
        or is_score_matrix(weights, stream)
    }


def _letters(product: Operand) -> str:
    return ascii_lowercase[: len(product.shape)]
