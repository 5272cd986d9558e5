"""Residual connections: ``Y <- Norm(sum_i Y_i)`` (eq. 11, Table 10; contract, point 6).

An addition of two or more traced streams; the addition of a constant is point-wise, and anything
added to mixing weights gives mixing weights.
"""

from labeltrace.call import Call
from labeltrace.combination import carry, combine
from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Operation
from labeltrace.registry import rule


@rule("aten.add", "aten.sub", "aten.rsub", "aten.lerp", "aten.__iadd__", "aten.__isub__")
def addition(call: Call) -> Flow:
    """A sum or difference; a factor on one side changes no label."""
    return _sum(call)


def _sum(call: Call) -> Flow:
    traced = [operand for operand in call.traced if operand.name != "weight"]  # lerp's share
    if not traced:
        return carry(call.traced[0], call.output)
    if len(traced) == 1:
        return carry(traced[0], call.output)
    return combine(traced, call.output, operation=Operation.RESIDUAL)


@rule("aten.addcmul", "aten.addcdiv")
def addition_of_product(call: Call) -> Flow:
    """``self + value * tensor1 * tensor2``, where at most one factor comes from the image."""
    factors = [operand for operand in (call["tensor1"], call["tensor2"]) if operand.traced]
    if len(factors) > 1:
        raise LayoutError(
            f"{call.operator} adds a product of two streams from the image; write the product "
            "and the sum as two steps"
        )
    return _sum(call)
