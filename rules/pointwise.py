"""Point-wise transformations: ``Y <- Y`` (Table 10).

Normalisation layers count among them, batch and group norm too (contract, point 5).
"""

from labeltrace.call import Call
from labeltrace.combination import carry, combine
from labeltrace.errors import LayoutError
from labeltrace.flow import Constant, Flow, Operand, Operation, Weights
from labeltrace.layout import has_positions
from labeltrace.registry import rule

LINEAR = (
    "aten.alias",
    "aten.clone",
    "aten.contiguous",
    "aten.detach",
    "aten.feature_dropout",
    "aten.lift_fresh_copy",
    "aten.neg",
    "aten.positive",
    "aten.to",
    "aten.type_as",
    "aten._to_copy",
    "aten.float",
    "aten.half",
    "aten.bfloat16",
    "aten.double",
    "aten.alpha_dropout",
    "aten.feature_alpha_dropout",
)
"""Scaled copies: a gate stays a gate."""

BOUNDED = (
    "aten.hardsigmoid",
    "aten.sigmoid",
    "aten.log_sigmoid",
    "aten.tanh",
    "aten.softsign",
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
)
"""Steps after which a stream is a gate in products (contract, point 8)."""

UNBOUNDED = (
    "aten.abs",
    "aten.atan",
    "aten.bitwise_not",
    "aten.ceil",
    "aten.celu",
    "aten.clamp_max",
    "aten.clamp_min",
    "aten.elu",
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
    "aten.pow",
    "aten.prelu",
    "aten.reciprocal",
    "aten.relu",
    "aten.relu6",
    "aten.round",
    "aten.rrelu",
    "aten.rsqrt",
    "aten.selu",
    "aten.silu",
    "aten.softplus",
    "aten.softshrink",
    "aten.sqrt",
    "aten.square",
    "aten.threshold",
    "aten.trunc",
)

NONNEGATIVE = frozenset(
    {
        "aten.abs",
        "aten.exp",
        "aten.relu",
        "aten.relu6",
        "aten.sigmoid",
        "aten.hardsigmoid",
        "aten.softplus",
        "aten.sqrt",
        "aten.square",
    }
)
"""Functions whose values are never below zero: as features of linear attention they are exact."""

NORMALISATION = (
    "aten.batch_norm",
    "aten.group_norm",
    "aten.instance_norm",
    "aten.layer_norm",
    "aten.rms_norm",
)


@rule(*LINEAR)
def scaled_copy(call: Call) -> Flow:
    """A copy of the first operand, perhaps of another type or scale; others give the type."""
    source: Operand = call.operands[0]
    if not source.traced:
        return Constant()
    kept = source.nonnegative and call.operator != "aten.neg"
    return carry(source, call.output, nonnegative=kept)


@rule(*BOUNDED)
def bounded(call: Call) -> Flow:
    """A non-linear function with a bounded range."""
    return _nonlinear(call, bounded=True)


@rule("aten.hardtanh", "aten.clamp")
def clamped(call: Call) -> Flow:
    """Values cut to a range: a gate if it lies within (-1, 1), as that of a hard sigmoid."""
    limits = [call.get(name) for name in ("min_val", "min", "max_val", "max")]
    numbers = [limit for limit in limits if isinstance(limit, (int, float))]
    bounded = len(numbers) == 2 and all(abs(number) <= 1 for number in numbers)
    return _nonlinear(call, bounded=bounded)


@rule(*UNBOUNDED)
def unbounded(call: Call) -> Flow:
    """Any other non-linear function of each value."""
    return _nonlinear(call, bounded=False)


@rule(*NORMALISATION)
def normalisation(call: Call) -> Flow:
    """A normalisation layer; scale, shift and statistics are constants."""
    return carry(_only(call), call.output)


@rule("aten.softmax", "aten._softmax", "aten.log_softmax", "aten._log_softmax")
def softmax(call: Call) -> Flow:
    """Over channels a gate; over positions the values become mixing weights for them."""
    source: Operand = call["self"]
    axis = source.positions.axes[call["dim"]]
    if source.labelled and has_positions(axis):
        return Weights(layout=source.positions)
    return carry(source, call.output, bounded=True, nonnegative=call.operator == "aten.softmax")


@rule("aten.copy", "aten.fill.Tensor")
def overwritten(call: Call) -> Flow:
    """Values written over others: what was there before is gone."""
    source: Operand = call["src" if "src" in call.arguments else "value"]
    return carry(source, call.output) if source.traced else Constant()


@rule("aten.fill", "aten.zero")
def overwritten_by_number(call: Call) -> Flow:
    """A number written over all values."""
    return Constant()


@rule("aten.dropout")
def dropout(call: Call) -> Flow:
    """Point-wise; mixing weights are used as they were before dropout (contract, point 4)."""
    source: Operand = call.operands[0]  # `input`, or `self` of the in-place twin
    if source.is_weights:
        return Weights(layout=source.positions, before=source, pending=source.pending)
    return carry(source, call.output, nonnegative=source.nonnegative)


@rule("aten.where", "aten.maximum", "aten.minimum", "aten.fmax", "aten.fmin", "aten.masked_fill")
def choice(call: Call) -> Flow:
    """One of two values at each place: point-wise, unless both come from the image."""
    candidates = [operand for operand in call.traced if operand.name not in ("condition", "mask")]
    if not candidates:
        return carry(call.traced[0], call.output, bounded=True)
    if len(candidates) == 1:
        return carry(candidates[0], call.output)
    return combine(
        candidates,
        call.output,
        operation=Operation.RESIDUAL,
        approximation="which of two streams a value comes from depends on the values",
    )


def _nonlinear(call: Call, *, bounded: bool) -> Flow:
    traced = call.traced
    if len(traced) == 1:
        nonnegative = call.operator in NONNEGATIVE
        return carry(traced[0], call.output, bounded=bounded, nonnegative=nonnegative)
    return combine(traced, call.output, operation=Operation.POINTWISE, bounded=bounded)


def _only(call: Call) -> Operand:
    """The one operand that comes from the image.

    Raises:
        LayoutError: there are several, as where a scale is computed from the image.
    """
    traced = call.traced
    if len(traced) > 1:
        names = ", ".join(operand.name for operand in traced)
        raise LayoutError(f"{call.operator} takes several tensors from the image: {names}")
    return traced[0]
