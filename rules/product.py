"""Products of traced streams: the gate is ignored, equals are averaged (contract, point 8)."""

from dataclasses import replace
from math import inf

from labeltrace.call import Call
from labeltrace.combination import carry
from labeltrace.contraction import product
from labeltrace.flow import Carry, Flow, Operand, Operation
from labeltrace.registry import rule
from labeltrace.rules.selection import narrowed


@rule("aten.mul", "aten.div", "aten.true_divide", "aten.atan2", "aten.remainder", "aten.fmod")
def multiplication(call: Call) -> Flow:
    """A product or quotient of two operands, one of which may be a constant or a number."""
    traced = call.traced
    if len(traced) == 1:
        flow = carry(traced[0], call.output, least=_scaled(call))
        constant = isinstance(call["other"], (int, float))
        return replace(flow, factors=traced[0].factors if constant else None)
    flow = product(traced[0], traced[1], call.output, operation=Operation.POINTWISE)
    stream, weights = sorted(traced, key=lambda operand: operand.is_weights)
    if call.operator == "aten.mul" and isinstance(flow, Carry) and weights.is_weights:
        return replace(flow, factors=(stream, weights))
    return flow


def _scaled(call: Call) -> float:
    """The least value of a stream times or over a number that is not negative."""
    source, other = call["self"], call["other"]
    if not isinstance(source, Operand) or not isinstance(other, (int, float)) or other <= 0:
        return -inf
    if call.get("rounding_mode") is not None:
        return -inf
    if call.operator == "aten.mul":
        return source.least * other
    return source.least / other if call.operator in ("aten.div", "aten.true_divide") else -inf


@rule("aten.glu")
def gated_half(call: Call) -> Flow:
    """One half of the channels times the sigmoid of the other."""
    source: Operand = call["self"]
    flow = narrowed(source, call["dim"], 0, call.output[call["dim"]])
    return replace(flow, least=min(source.least, 0.0))
