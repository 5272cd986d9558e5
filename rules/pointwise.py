"""Point-wise operators: activations, copies, dropout, normalization layers. `Y <- Y` (Table 10).

Batch and group normalization count as point-wise too (contract, point 5).
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from string import ascii_lowercase

from labeltrace.errors import LayoutError
from labeltrace.flow import (
    Average,
    Constant,
    ContractedStreams,
    Flow,
    NamedOperand,
    Operand,
    Operation,
    Weights,
)
from labeltrace.layout import has_positions
from labeltrace.rule_api.call import Call, Shape
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import carry, combine
from labeltrace.rule_helpers.output_facts import with_product
from labeltrace.rule_helpers.weighted_sum import factors_of

LINEAR = (
    "aten.alias",
    "aten.bitwise_not",
    "aten.clone",
    "aten.contiguous",
    "aten.detach",
    "aten.feature_dropout",
    "aten.lift_fresh_copy",
    "aten.neg",
    "aten.positive",
    "aten.resolve_conj",
    "aten.resolve_neg",
    "aten.to",
    "aten.type_as",
    "aten._to_copy",
    "aten.alpha_dropout",
    "aten.feature_alpha_dropout",
)
"""Copies that are scaled or shifted at most: a gate stays a gate."""

SHIFTED = frozenset(
    {"aten.neg", "aten.bitwise_not", "aten.alpha_dropout", "aten.feature_alpha_dropout"}
)
"""Those of `LINEAR` whose values may be below the lower bound of the operand."""

GATES = (
    "aten.hardsigmoid",
    "aten.sigmoid",
    "aten.log_sigmoid",
    "aten.tanh",
    "aten.sign",
    "aten.sin",
    "aten.cos",
    "aten.erf",
    "aten.logical_not",
    "aten.isnan",
    "aten.isinf",
    "aten.isfinite",
    "aten.gt",
    "aten.ge",
    "aten.lt",
    "aten.le",
    "aten.eq",
    "aten.ne",
    "aten.__and__",
    "aten.__or__",
    "aten.__xor__",
    "aten.bitwise_and",
    "aten.bitwise_or",
    "aten.bitwise_xor",
    "aten.logical_and",
    "aten.logical_or",
    "aten.logical_xor",
)
"""Operators after which a stream is a gate in products (contract, point 8)."""

NOT_GATES = (
    "aten.abs",
    "aten.atan",
    "aten.ceil",
    "aten.exp",
    "aten.expm1",
    "aten.floor",
    "aten.frac",
    "aten.gelu",
    "aten.hardshrink",
    "aten.hardswish",
    "aten.leaky_relu",
    "aten.log",
    "aten.log10",
    "aten.log1p",
    "aten.log2",
    "aten.mish",
    "aten.nan_to_num",
    "aten.prelu",
    "aten.relu",
    "aten.relu6",
    "aten.round",
    "aten.rrelu",
    "aten.selu",
    "aten.silu",
    "aten.softplus",
    "aten.softshrink",
    "aten.sqrt",
    "aten.square",
    "aten.threshold",
    "aten.trunc",
)

LOWER_BOUNDS = {
    "aten.abs": 0.0,
    "aten.cos": -1.0,
    "aten.erf": -1.0,
    "aten.exp": 0.0,
    "aten.expm1": -1.0,
    "aten.gelu": -0.171,
    "aten.hardsigmoid": 0.0,
    "aten.hardswish": -0.375,
    "aten.mish": -0.309,
    "aten.relu": 0.0,
    "aten.relu6": 0.0,
    "aten.sigmoid": 0.0,
    "aten.silu": -0.279,
    "aten.sin": -1.0,
    "aten.softplus": 0.0,
    "aten.sqrt": 0.0,
    "aten.square": 0.0,
    "aten.tanh": -1.0,
}
"""A lower bound of a function's values.

Linear attention is exact if no feature is negative, perhaps after a shift (`elu(x) + 1`).
"""

NORMALIZATION = (
    "aten.batch_norm",
    "aten.group_norm",
    "aten.instance_norm",
    "aten.layer_norm",
    "aten.rms_norm",
)


@register_rule(*LINEAR)
def copy_of_first(call: Call) -> Flow:
    """A copy of the first operand, perhaps scaled or of another type; others only give the type."""
    source: Operand = call.operands[0]
    if not source.traced:
        return Constant()
    changed = call.operator in SHIFTED or "dropout" in call.operator
    facts = source.facts.with_lower_bound(-inf if changed else source.lower_bound)
    if call.operator in SHIFTED:
        facts = facts.with_product(None) if source.is_weights else source.facts.after_linear()
    facts = facts.negated() if call.operator == "aten.neg" else facts
    return replace(carry(source, call.output), facts=facts)


@register_rule(*GATES)
def bounded_activation(call: Call) -> Flow:
    """A non-linear function with a bounded range."""
    return _nonlinear(call, is_gate=True)


@register_rule("aten.hardtanh", "aten.clamp", "aten.clamp_min", "aten.clamp_max")
def clamp(call: Call) -> Flow:
    """Values clamped to a range: a gate if the range is inside [-1, 1], as for a hard sigmoid.

    A gate stays a gate.
    """
    if len(call.traced) > 1:
        return _either(call.traced, call.output)
    limits = [call.get(name) for name in ("min_val", "min", "max_val", "max")]
    numbers = [limit for limit in limits if isinstance(limit, (int, float))]
    narrow = len(numbers) == 2 and all(abs(number) <= 1 for number in numbers)
    is_gate = narrow or call.traced[0].is_gate
    lower_bound = limits[0] if limits[0] is not None else limits[1]
    known = isinstance(lower_bound, (int, float))
    return _nonlinear(call, is_gate=is_gate, lower_bound=float(lower_bound) if known else -inf)


@register_rule("aten.reciprocal", "aten.rsqrt")
def reciprocal(call: Call) -> Flow:
    """The reciprocal of a gate is a gate: a division by a gate is gating."""
    return _nonlinear(call, is_gate=call.operands[0].is_gate)


@register_rule("aten.elu", "aten.celu")
def elu(call: Call) -> Flow:
    """Linear above zero; below zero it approaches a negative constant."""
    return _nonlinear(call, is_gate=False, lower_bound=-abs(call["alpha"] * call.get("scale", 1)))


@register_rule("aten.pow")
def pow_(call: Call) -> Flow:
    """Even powers are never negative."""
    exponent = call.get("exponent")
    even = isinstance(exponent, (int, float)) and exponent % 2 == 0
    return _nonlinear(call, is_gate=False, lower_bound=0.0 if even else -inf)


@register_rule(*NOT_GATES)
def unbounded_activation(call: Call) -> Flow:
    """Any other non-linear function of each value."""
    return _nonlinear(call, is_gate=False)


@register_rule(*NORMALIZATION)
def normalization(call: Call) -> Flow:
    """A normalization layer; scale, shift and statistics are constants."""
    return carry(_normalized(call), call.output)


@register_rule("aten.softmax", "aten._softmax", "aten.log_softmax", "aten._log_softmax")
def softmax(call: Call) -> Flow:
    """Over channels a gate; over positions the values become mixing weights of these positions."""
    source: Operand = call["self"]
    axis = source.traced_layout.axes[call["dim"]]
    lower_bound = -inf if "log" in call.operator else 0.0
    if source.labeled and has_positions(axis):
        facts = source.facts.after_nonlinear(is_gate=False, lower_bound=lower_bound)
        letters = tuple(ascii_lowercase[: len(source.shape)])
        axes = dict(zip(letters, source.traced_layout.axes, strict=True))
        own = ContractedStreams((NamedOperand(source, letters, axes),), letters)
        return Weights(layout=source.traced_layout, facts=facts, contracted=own)
    return carry(source, call.output, is_gate=True, lower_bound=lower_bound)


@register_rule("aten.copy", "aten.fill.Tensor")
def copy(call: Call) -> Flow:
    """Values that are written over others, of which nothing is left."""
    source: Operand = call["src" if "src" in call.arguments else "value"]
    return carry(source, call.output) if source.traced else Constant()


@register_rule("aten.fill", "aten.zero")
def fill(call: Call) -> Flow:
    """A number that is written over all values."""
    return Constant()


@register_rule("aten.dropout")
def dropout(call: Call) -> Flow:
    """Point-wise; labels are mixed with the mixing weights before dropout (contract, point 4)."""
    source: Operand = call.operands[0]  # `input`, or `self` of the in-place operator
    if source.is_weights and call["train"] and call["p"] > 0:
        return Weights(layout=source.traced_layout, facts=source.facts, before_dropout=source)
    facts = source.facts.with_lower_bound(0.0 if source.nonnegative else -inf)
    return replace(carry(source, call.output), facts=facts)


@register_rule(
    "aten.where",
    "aten.maximum",
    "aten.minimum",
    "aten.max.other",
    "aten.min.other",
    "aten.fmax",
    "aten.fmin",
    "aten.masked_fill",
)
def where(call: Call) -> Flow:
    """One of two values at each index: point-wise, unless both come from the image."""
    candidates = [operand for operand in call.traced if operand.name not in ("condition", "mask")]
    if not candidates:
        return carry(call.traced[0], call.output, is_gate=True)
    if len(candidates) == 1:
        flow = carry(candidates[0], call.output)
        mask = call.get("condition", call.get("mask"))
        factors = factors_of(candidates[0], mask) if isinstance(mask, Operand) else None
        return with_product(flow, factors.after_other_step()) if factors else flow
    return _either(candidates, call.output)


def _either(candidates: Sequence[Operand], output: Shape) -> Flow:
    """Values selected from several streams: the average of their labels, an approximation."""
    flow = combine(candidates, output, operation=Operation.RESIDUAL)
    if not isinstance(flow, Average):  # all have one label, or these are weights
        return flow
    reason = "which of two streams a value comes from depends on the values"
    return replace(flow, approximation=reason)


def _nonlinear(call: Call, *, is_gate: bool, lower_bound: float | None = None) -> Flow:
    traced = call.traced
    if len(traced) == 1:
        known = LOWER_BOUNDS.get(call.operator, -inf) if lower_bound is None else lower_bound
        return carry(traced[0], call.output, is_gate=is_gate, lower_bound=known)
    return combine(traced, call.output, operation=Operation.POINTWISE, is_gate=is_gate)


def _normalized(call: Call) -> Operand:
    """The operand that is normalized; statistics that the model computed of it may be others.

    Raises:
        LayoutError: there are several, for example a scale that is computed from the image.
    """
    source, *others = call.traced
    if any(not _is_statistic_of_channels(operand, source) for operand in others):
        names = ", ".join(operand.name for operand in call.traced)
        raise LayoutError(f"{call.operator} takes several tensors from the image: {names}")
    return source


def _is_statistic_of_channels(operand: Operand, source: Operand) -> bool:
    """Whether an operand is a mean or spread of the source, a number for each of its channels."""
    if operand.name not in ("running_mean", "running_var") or operand.traced_layout.field_sizes:
        return False
    tensors = {origin.tensor for origin in source.origins if not origin.is_statistic}
    return any(origin.is_statistic and origin.tensor in tensors for origin in operand.origins)
