"""Products and quotients of streams, value by value.

A factor that is a gate is ignored; streams of equal rank are averaged (contract, point 8).
"""

from dataclasses import replace
from math import inf

from labeltrace.flow import Flow, Operand, Operation, ProductOperands
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import carry
from labeltrace.rule_helpers.elementwise_product import product
from labeltrace.rule_helpers.output_facts import with_lower_bound, with_product
from labeltrace.rule_helpers.weighted_sum import factors_of
from labeltrace.rules.indexing import narrowed


@register_rule(
    "aten.mul", "aten.div", "aten.true_divide", "aten.atan2", "aten.remainder", "aten.fmod"
)
def mul(call: Call) -> Flow:
    """A product or quotient of two operands, one of which may be a constant or a number."""
    traced = call.traced
    if len(traced) == 2:
        flow = product(traced[0], traced[1], call.output, operation=Operation.POINTWISE)
    else:
        flow = carry(_with_sign(traced[0], call), call.output, lower_bound=_scaled(call))
    known = traced[0].product if _is_scaling(call) else _factors(call)
    return with_product(flow, known) if known else flow


def _factors(call: Call) -> ProductOperands | None:
    first, second = call["self"], call["other"]
    if not isinstance(first, Operand) or not isinstance(second, Operand):
        return None
    factors = factors_of(first, second)
    return factors.after_other_step() if factors and call.operator != "aten.mul" else factors


def _is_scaling(call: Call) -> bool:
    """Whether a stream is multiplied or divided by a number, without rounding."""
    known = call.operator in ("aten.mul", "aten.div", "aten.true_divide")
    number = isinstance(call["other"], (int, float))
    return known and number and call.get("rounding_mode") is None


def _with_sign(source: Operand, call: Call) -> Operand:
    """The operand, negated where it is multiplied or divided by a negative number."""
    number = next((call[x] for x in ("self", "other") if not isinstance(call[x], Operand)), 1)
    negative = isinstance(number, (int, float)) and number < 0
    return replace(source, facts=source.facts.negated()) if negative else source


def _scaled(call: Call) -> float:
    """A lower bound of a stream times or over a number; minus infinity unless that is positive."""
    source, other = call["self"], call["other"]
    if not _is_scaling(call) or not isinstance(source, Operand) or other <= 0:
        return -inf
    return source.lower_bound * other if call.operator == "aten.mul" else source.lower_bound / other


@register_rule("aten.glu")
def glu(call: Call) -> Flow:
    """One half of the channels times the sigmoid of the other half."""
    source: Operand = call["self"]
    flow = narrowed(source, call["dim"], 0, call.output[call["dim"]])
    return with_lower_bound(flow, min(source.lower_bound, 0.0))
