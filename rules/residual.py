"""Sums and differences. Two or more streams are a residual connection.

`Y <- Norm(sum_i Y_i)` (eq. 11, Table 10; contract, point 6). To add a constant is point-wise.
To subtract from a stream a statistic of itself is point-wise as well (point 5): normalization.
Whatever is added to mixing weights, the sum is mixing weights.
"""

from dataclasses import replace
from math import inf

from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Operand, Operation
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import carry, combine
from labeltrace.rule_helpers.output_facts import with_origins
from labeltrace.rule_helpers.own_statistics import normalized_stream, sum_origins


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
        return carry(_with_sign(traced[0], call), call.output, lower_bound=lower_bound)
    if len(traced) == 2 and call.operator != "aten.lerp":
        first, second = (_with_sign(operand, call) for operand in traced)
        if first.labeled and second.labeled:
            stream = normalized_stream(first, second, call.output)
            if stream is not None:
                origins = sum_origins(stream, (first, second), call.output)
                return with_origins(carry(stream, call.output), origins)
    return combine(traced, call.output, operation=Operation.RESIDUAL)


def _with_sign(operand: Operand, call: Call) -> Operand:
    """The operand as it is summed: negated where it is subtracted."""
    subtracted = {"aten.sub": "other", "aten.__isub__": "other", "aten.rsub": "self"}
    scaled = "self" if call.operator == "aten.rsub" else "other"
    negative = operand.name == subtracted.get(call.operator)
    alpha = call.get("alpha", 1)
    if operand.name == scaled and isinstance(alpha, (int, float)):
        negative ^= alpha < 0
    return replace(operand, facts=operand.facts.negated()) if negative else operand


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
