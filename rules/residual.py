"""Sums and differences. Two or more streams are a residual connection.

`Y <- Norm(sum_i Y_i)` (eq. 11, Table 10; contract, point 6). To add a constant is point-wise.
Whatever is added to mixing weights, the sum is mixing weights.
"""

from math import inf

from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Operand, Operation
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import carry, combine


@register_rule("aten.add", "aten.sub", "aten.rsub", "aten.lerp", "aten.__iadd__", "aten.__isub__")
def add(call: Call) -> Flow:
    """A sum or difference; the factor `alpha` on one side changes no label."""
    return _sum(call, lower_bound=_shifted(call))


def _shifted(call: Call) -> float:
    """A lower bound of a stream plus or minus a number."""
    source, number = call.arguments.get("self"), call.arguments.get("other")
    if not isinstance(source, Operand) or not isinstance(number, (int, float)):
        return -inf
    shift = number * call.get("alpha", 1)
    if call.operator in ("aten.add", "aten.__iadd__"):
        return source.lower_bound + shift
    return source.lower_bound - shift if call.operator in ("aten.sub", "aten.__isub__") else -inf


def _sum(call: Call, lower_bound: float = -inf) -> Flow:
    traced = [operand for operand in call.traced if operand.name != "weight"]  # of lerp
    if not traced:
        return carry(call.traced[0], call.output)
    if len(traced) == 1:
        return carry(traced[0], call.output, lower_bound=lower_bound)
    return combine(traced, call.output, operation=Operation.RESIDUAL)


@register_rule("aten.addcmul", "aten.addcdiv")
def addcmul(call: Call) -> Flow:
    """`self + value * tensor1 * tensor2`, if at most one factor comes from the image."""
    factors = [operand for operand in (call["tensor1"], call["tensor2"]) if operand.traced]
    if len(factors) > 1:
        raise LayoutError(
            f"{call.operator} adds a product of two streams from the image; write the product "
            "and the sum as two steps"
        )
    return _sum(call)
