"""`(weights * values).sum(tokens)` written as two operators: recognize it as one contraction.

An element-wise product may be a mere gate (contract, point 8). If a sum over positions follows, the
two operators are a contraction, like one `einsum`: values times weights, summed over the tokens
(point 4). So a product keeps its operands until a sum shows what they are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from string import ascii_lowercase

from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Operand, ProductOperands
from labeltrace.index_notation.contraction_equation import ContractionEquation
from labeltrace.index_notation.parsing import Names
from labeltrace.layout import has_positions
from labeltrace.rule_helpers.contraction import contract
from labeltrace.rule_helpers.product_kinds import is_inner_product
from labeltrace.rule_helpers.weighted_streams import (
    WeightedStream,
    find_weighted_streams,
    name_factors,
)

UNWEIGHTED = "it was multiplied by weights for its positions, which are not applied along all axes"

STEP_BETWEEN = (
    "values times weights are summed over positions after another step; sum them right after the "
    "product, or write both as one matmul or einsum"
)


def factors_of(first: Operand, second: Operand) -> ProductOperands | None:
    """The operands of a product that a later sum may turn into a contraction.

    Those are two streams, or a stream and weights for its positions; None for any other product. If
    an operand is itself a product of a stream and its weights, that one is kept.
    """
    for operand in (first, second):
        if operand.product is not None and find_weighted_streams(operand.product):
            return operand.product.after_other_step()
    factors = ProductOperands(_without_product(first), _without_product(second))
    streams = first.labeled and second.labeled
    return factors if streams or find_weighted_streams(factors) else None


def reason_mean_is_wrong(product: Operand, summed: Collection[int]) -> str:
    """Why the mean over some axes of an operand does not have the labels' plain mean.

    Args:
        product: the operand.
        summed: the axes.

    Returns:
        The reason; empty where the plain mean is right.
    """
    factors = product.product
    if factors is None:
        return ""
    if factors.axes_unchanged:
        found = find_weighted_streams(factors, _names(product, summed))
    else:  # the operand has other axes than the product: any of the weights may be applied
        found = find_weighted_streams(factors) if _positions(product, summed) else []
    return UNWEIGHTED if found else ""


def is_score(product: Operand, summed: Collection[int]) -> bool:
    """Whether the sum over some axes of a product of two streams is their inner product."""
    factors = product.product
    if factors is None or not factors.axes_unchanged:
        return False
    streams = factors.first.labeled and factors.second.labeled
    one, two, sizes = name_factors(factors)
    return streams and is_inner_product(one, two, _names(product, _kept(product, summed)), sizes)


def weighted_sum(product: Operand, summed: Collection[int]) -> Flow | None:
    """The sum over some axes of a stream times weights: `Norm(W)·Y`.

    Args:
        product: the operand that is summed.
        summed: the axes, which the flow's layout does not have.

    Returns:
        None where there are no weights along the axes, and where they vary along some of them only.

    Raises:
        LayoutError: there was another step between the product and the sum.
    """
    factors = product.product
    if factors is None:
        return None
    if not factors.axes_unchanged:
        _check_no_step_between(product, factors, summed)
        return None
    weighted = _stream_with_weights_applied(product, factors, summed)
    if weighted is None:
        return None
    kept = _kept(product, summed)
    equation = ContractionEquation(
        weighted.stream.letters, weighted.weights.letters, _names(product, kept)
    )
    output = tuple(product.shape[dim] for dim in kept)
    return contract(equation, weighted.stream.operand, weighted.weights.operand, output)


def _stream_with_weights_applied(
    product: Operand, factors: ProductOperands, summed: Collection[int]
) -> WeightedStream | None:
    """The stream of a product whose weights the sum applies; None where it applies none."""
    found = find_weighted_streams(factors, _names(product, summed))
    if len(found) != 1:  # no weights, or each operand weighs the other
        return None
    (weighted,) = found
    applied_along_all = weighted.letters == set(_names(product, _positions(product, summed)))
    if not applied_along_all or not weighted.has_pure_positions:
        return None
    scales_scores = product.is_weights and not weighted.keeps_features
    return None if scales_scores else weighted


def _check_no_step_between(
    product: Operand, factors: ProductOperands, summed: Collection[int]
) -> None:
    """Check that no features are lost: a sum of weights has no label to fall back on.

    Raises:
        LayoutError: the operand is read as weights, but it is values times weights.
    """
    if not product.is_weights or not _positions(product, summed):
        return
    if any(weighted.keeps_features for weighted in find_weighted_streams(factors)):
        raise LayoutError(STEP_BETWEEN)


def _without_product(operand: Operand) -> Operand:
    """The operand without the operands of a product that it is itself."""
    return replace(operand, facts=operand.facts.with_product(None))


def _names(product: Operand, dims: Collection[int]) -> Names:
    """The letters of some axes of a product."""
    return tuple(ascii_lowercase[: len(product.shape)][dim] for dim in dims)


def _kept(product: Operand, summed: Collection[int]) -> list[int]:
    """The axes that a sum leaves."""
    return [dim for dim in range(len(product.shape)) if dim not in summed]


def _positions(product: Operand, summed: Collection[int]) -> list[int]:
    """The summed axes that have positions."""
    return [dim for dim in summed if has_positions(product.traced_layout.axes[dim])]
