"""Products of traced streams: the gate is ignored, equals are averaged (contract, point 8)."""

from labeltrace.call import Call
from labeltrace.combination import carry
from labeltrace.contraction import product
from labeltrace.flow import Flow, Operation
from labeltrace.registry import rule
from labeltrace.rules.selection import narrowed


@rule("aten.mul", "aten.div", "aten.true_divide", "aten.atan2", "aten.remainder", "aten.fmod")
def multiplication(call: Call) -> Flow:
    """A product or quotient of two operands, one of which may be a constant or a number."""
    traced = call.traced
    if len(traced) == 1:
        factor = call["other"]
        kept = traced[0].nonnegative and isinstance(factor, (int, float)) and factor >= 0
        return carry(traced[0], call.output, nonnegative=kept)
    return product(traced[0], traced[1], call.output, operation=Operation.POINTWISE)


@rule("aten.glu")
def gated_half(call: Call) -> Flow:
    """One half of the channels times the sigmoid of the other."""
    return narrowed(call["self"], call["dim"], 0, call.output[call["dim"]])
