"""Products in index notation: `contract` gives the flow of an operator like `torch.einsum`.

A rule says which axes its operator contracts (`"... i, o i -> ... o"`). What that does to labels
follows from the factors of these axes, never from the operator's name:
`labeltrace.rule_helpers.product_kinds` classifies the product, and
`labeltrace.rule_helpers.product_flows` has a flow for each kind.
"""

from __future__ import annotations

from labeltrace.flow import Flow, Operand
from labeltrace.index_notation.contraction_equation import ContractionEquation
from labeltrace.rule_api.call import Shape
from labeltrace.rule_helpers.named_operand import axis_sizes, name_axes
from labeltrace.rule_helpers.product_flows import FLOWS
from labeltrace.rule_helpers.product_kinds import classify_product, stream_first


def contract(
    equation: str | ContractionEquation, first: Operand, second: Operand, output: Shape
) -> Flow:
    """The flow of `einsum(equation, first, second)`.

    Examples:
        The rule of a linear layer:

        >>> def linear(call: Call) -> Flow:
        ...     return contract("... i, o i -> ... o", call["input"], call["weight"], call.output)

    Args:
        equation: the axes of both operands and of the result, by name; `...` is any number of
            leading axes, which broadcast as in `torch.matmul`.
        first: one operand of the product.
        second: the other one.
        output: the shape of the result.

    Raises:
        LayoutError: the contraction mixes positions in a way that has no meaning as a flow.
        NotationError: the equation cannot be read, or it does not name the axes of the tensors.
    """
    if isinstance(equation, str):
        equation = ContractionEquation.parse(equation)
    named = equation.with_axes_named((len(first.shape), len(second.shape)), len(output))
    result = named.result
    sizes = axis_sizes((named.first, first.shape), (named.second, second.shape))
    one, two = name_axes(first, named.first, sizes), name_axes(second, named.second, sizes)
    kind = classify_product(one, two, result, sizes)
    return FLOWS[kind](*stream_first(one, two, result), result, sizes)
