"""Point-wise steps: changing one cell at a time confirms that values depend on their own alone.

Each function is called in two outputs: by itself, and as a factor of another stream, which shows
whether it is a gate (contract, point 8).
"""

import re

import torch
import torch.nn.functional as F

from tests.rules.cases.case import Refusal, RuleCase, values
from tests.rules.cases.expected_labels import (
    averages,
    by_contract,
    each,
    follows,
    linear_attention,
    mixes,
    no_label,
    on,
    spread,
    stays,
)

ATEN = "torch.ops.aten."
SMALL = (2, 3, 2, 5)
LAST = (2, 2, 5, 3)

COPIES = {
    "aten.alias": "alias(x)",
    "aten.clone": "clone(x)",
    "aten.contiguous": "contiguous(x)",
    "aten.detach": "detach(x)",
    "aten.feature_dropout": "feature_dropout(x, 0.5, False)",
    "aten.lift_fresh_copy": "lift_fresh_copy(x)",
    "aten.neg": "neg(x)",
    "aten.positive": "positive(x)",
    "aten.resolve_conj": "resolve_conj(x)",
    "aten.resolve_neg": "resolve_neg(x)",
    "aten.to": "to.dtype(x, torch.float64)",
    "aten.type_as": "type_as(x, self.like)",
    "aten._to_copy": "_to_copy(x, dtype=torch.float64)",
    "aten.alpha_dropout": "alpha_dropout(x, 0.5, False)",
    "aten.feature_alpha_dropout": "feature_alpha_dropout(x, 0.5, False)",
    "aten.dropout": "dropout(x, 0.5, False)",
}
"""A copy of a gate is a gate; a copy of anything else is not."""

GATES = {
    "aten.hardsigmoid": "hardsigmoid(x)",
    "aten.sigmoid": "sigmoid(x)",
    "aten.log_sigmoid": "log_sigmoid(x)",
    "aten.tanh": "tanh(x)",
    "aten.sign": "sign(x)",
    "aten.sin": "sin(x)",
    "aten.cos": "cos(x)",
    "aten.erf": "erf(x)",
    "aten.logical_not": "logical_not(x > 0)",
    "aten.bitwise_not": "bitwise_not(x > 0)",
    "aten.isnan": "isnan(x)",
    "aten.isinf": "isinf(x)",
    "aten.isfinite": "isfinite(x)",
    "aten.gt": "gt.Scalar(x, 0)",
    "aten.ge": "ge.Scalar(x, 0)",
    "aten.lt": "lt.Tensor(x, self.like)",
    "aten.le": "le.Scalar(x, 0)",
    "aten.eq": "eq.Scalar(x, 0)",
    "aten.ne": "ne.Tensor(x, self.zero)",
    "aten.__and__": "__and__.Tensor(x > 0, self.zero < 1)",
    "aten.__or__": "__or__.Tensor(x > 0, self.zero > 1)",
    "aten.__xor__": "__xor__.Tensor(x > 0, self.zero < 1)",
    "aten.bitwise_and": "bitwise_and.Tensor(x > 0, self.zero < 1)",
    "aten.bitwise_or": "bitwise_or.Tensor(x > 0, self.zero > 1)",
    "aten.bitwise_xor": "bitwise_xor.Tensor(x > 0, self.zero < 1)",
    "aten.logical_and": "logical_and(x > 0, self.zero < 1)",
    "aten.logical_or": "logical_or(x > 0, self.zero > 1)",
    "aten.logical_xor": "logical_xor(x > 0, self.zero < 1)",
    "aten.hardtanh": "hardtanh(x)",
    "aten.clamp": "clamp(x, -1, 0.5)",
    "aten.softmax": "softmax.int(x, 1)",
    "aten._softmax": "_softmax(x, -3, False)",
    "aten.log_softmax": "log_softmax.int(x, -3)",
    "aten._log_softmax": "_log_softmax(x, 1, False)",
}
FUNCTIONS = {
    "aten.abs": "abs(x)",
    "aten.atan": "atan(x)",
    "aten.ceil": "ceil(x)",
    "aten.celu": "celu(x)",
    "aten.clamp": "clamp(x, -1, 2)",
    "aten.clamp_max": "clamp_max(x, 0.5)",
    "aten.clamp_min": "clamp_min(x, 0)",
    "aten.elu": "elu(x)",
    "aten.exp": "exp(x)",
    "aten.expm1": "expm1(x)",
    "aten.floor": "floor(x)",
    "aten.frac": "frac(x)",
    "aten.gelu": "gelu(x, approximate='tanh')",
    "aten.hardshrink": "hardshrink(x)",
    "aten.hardswish": "hardswish(x)",
    "aten.hardtanh": "hardtanh(x, 0, 6)",
    "aten.leaky_relu": "leaky_relu(x, 0.2)",
    "aten.log": "log(x)",
    "aten.log10": "log10(x)",
    "aten.log1p": "log1p(x)",
    "aten.log2": "log2(x)",
    "aten.mish": "mish(x)",
    "aten.nan_to_num": "nan_to_num(x)",
    "aten.pow": "pow.Tensor_Scalar(x, 3)",
    "aten.prelu": "prelu(x, self.slopes)",
    "aten.reciprocal": "reciprocal(x)",
    "aten.relu": "relu(x)",
    "aten.relu6": "relu6(x)",
    "aten.round": "round(x)",
    "aten.rrelu": "rrelu(x)",
    "aten.rsqrt": "rsqrt(x)",
    "aten.selu": "selu(x)",
    "aten.silu": "silu(x)",
    "aten.softplus": "softplus(x, 2)",
    "aten.softshrink": "softshrink(x)",
    "aten.sqrt": "sqrt(x)",
    "aten.square": "square(x)",
    "aten.threshold": "threshold(x, 0.1, 2.0)",
    "aten.trunc": "trunc(x)",
    "aten.layer_norm": "layer_norm(x.movedim(1, 3), [3]).movedim(3, 1)",
    "aten.rms_norm": "rms_norm(x.movedim(1, 3), [3]).movedim(3, 1)",
    "aten.masked_fill": "masked_fill.Scalar(x, x > 0, 2.0)",
    "aten.where": "where.ScalarOther(x > 0, x, 2.0)",
    "aten.maximum": "maximum(x, self.like)",
    "aten.max.other": "max.other(x, self.like)",
    "aten.min.other": "min.other(x, self.like)",
    "aten.minimum": "minimum(self.like, x)",
    "aten.fmax": "fmax(x, self.like)",
    "aten.fmin": "fmin(self.like, x)",
}
PARTS = {"like": values(*SMALL[1:]), "zero": torch.zeros(1), "slopes": values(3)}


def of(call: str, stream: str) -> str:
    """The call with another stream in the place of `x`."""
    return ATEN + re.sub(r"\bx\b", stream, call)


def twin(call: str) -> str:
    """The same in place, on a copy."""
    name, rest = call.split("(", 1)
    packet, *overload = name.split(".")
    return of(".".join((f"{packet}_", *overload)) + "(" + rest, "x.clone()")


def factors(name: str, call: str, gated: bool) -> RuleCase:
    """The function by itself, and times another stream, on either side."""
    itself = of(call, "x")
    streams = ("x.flip(3)",) if gated else ("x.flip(3)", "x")
    code = f"({itself}, x.flip(3) * {itself}, {itself} * x.flip(3))"
    product = averages(*streams)
    return RuleCase(name, code, each(on(itself, stays), product, product), PARTS, SMALL)


def copies(name: str, call: str) -> RuleCase:
    """A copy of a stream, and of a gate."""
    itself, gate = of(call, "x"), of(call, "x.sigmoid()")
    code = f"({itself}, x.flip(3) * {itself}, x.flip(3) * {gate})"
    truth = each(on(itself, stays), averages("x", "x.flip(3)"), averages("x.flip(3)"))
    return RuleCase(name, code, truth, PARTS, SMALL)


def has_twin(call: str) -> bool:
    packet, _, overload = call.split("(")[0].partition(".")
    operator = getattr(torch.ops.aten, f"{packet}_", None)
    return operator is not None and (overload or "default") in operator.overloads()


LAYOUTS = (
    "x.permute(0, 2, 3, 1)",
    "x.permute(0, 3, 1, 2)",
    "x.flatten(2).mT",
    "x.permute(0, 2, 3, 1).flatten(0, 1)",
    "x.movedim(2, 0)",
)
POINTWISE = {
    "aten.relu": "torch.relu({})",
    "aten.sigmoid": "torch.sigmoid({})",
    "aten.clone": "({}).clone()",
    "aten.gt": "({}) > 0",
    "aten.masked_fill": "({0}).masked_fill({0} > 0, 0.0)",
    "aten.dropout": "F.dropout({}, training=False)",
}
SOFTMAX = {  # over channels, wherever they are
    "x.softmax(-3)": "x",
    "x.permute(0, 2, 3, 1).softmax(-1)": "x.permute(0, 2, 3, 1)",
    "x.flatten(2).mT.softmax(2)": "x.flatten(2).mT",
    "x.movedim(1, 0).softmax(0)": "x.movedim(1, 0)",
    "x.unsqueeze(2).softmax(2)": "x.unsqueeze(2)",
}
WEIGHTS = {  # over positions: returned, they are content
    "x.softmax(2)": averages("x"),
    "x.softmax(-1)": averages("x"),
    "x.flatten(2).softmax(2)": averages("x.flatten(2)"),
    "x.flatten(2).mT.softmax(1)": averages("x.flatten(2).mT"),
    "x.softmax(0)": averages("x"),
    "x.flatten(1).softmax(1)": spread(averages("x.flatten(1)"), 1),
    "F.dropout(x.softmax(2), training=False)": averages("x"),
    "x.softmax(2) + self.like": averages("x"),
}
CHOICES = {
    "torch.where(x > 0, x, 0.0)": ("aten.where", ("x",)),
    "torch.where(x > 0, 0.0, x)": ("aten.where", ("x",)),
    "torch.where(x > 0, x, self.like)": ("aten.where", ("x",)),
    "torch.where(x > 0, self.like, self.zero)": ("aten.where", ("x",)),
    "torch.where(self.mask, x, self.like)": ("aten.where", ("x",)),
    "torch.where(self.mask, self.like, x)": ("aten.where", ("x",)),
    "torch.where(x > 0, x, 2 * x)": ("aten.where", ("x",)),
    "x.masked_fill(self.mask, 2.0)": ("aten.masked_fill", ("x",)),
    "x.masked_fill(x > 0, self.zero[0])": ("aten.masked_fill", ("x",)),
    "x.clone().masked_fill_(x > 0, 2.0)": ("aten.masked_fill", ("x",)),
    "self.like.expand_as(x).masked_fill(x > 0, 2.0)": ("aten.masked_fill", ("x",)),
    "self.like.masked_fill(x[1] > 0, 2.0)": ("aten.masked_fill", ("x[1]",)),
    "torch.maximum(x, self.zero)": ("aten.maximum", ("x",)),
    "torch.minimum(self.like, x)": ("aten.minimum", ("x",)),
    "torch.maximum(x, x / 2)": ("aten.maximum", ("x",)),
    "torch.clamp(x, self.zero, self.like.abs())": ("aten.clamp", ("x",)),
    "torch.clamp(x, min=self.zero)": ("aten.clamp", ("x",)),
    "torch.clamp(x, max=0.5)": ("aten.clamp", ("x",)),
}
EITHER = {  # values of two streams: approximate
    "torch.where(x > 0, x, x.flip(3))": ("aten.where", ("x", "x.flip(3)")),
    "torch.where(self.mask, x, x.flip(3))": ("aten.where", ("x", "x.flip(3)")),
    "torch.where(self.mask, x.flip(2), x[:, :, :1])": ("aten.where", ("x.flip(2)", "x[:, :, :1]")),
    "torch.maximum(x, x.flip(3))": ("aten.maximum", ("x", "x.flip(3)")),
    "torch.maximum(x, x[1])": ("aten.maximum", ("x", "x[1:]")),
    "torch.minimum(x.flip(2), x)": ("aten.minimum", ("x", "x.flip(2)")),
    "torch.fmax(x, x.flip(3))": ("aten.fmax", ("x", "x.flip(3)")),
    "torch.fmin(x, x.flip(3))": ("aten.fmin", ("x", "x.flip(3)")),
    "x.masked_fill(self.mask, x[0, 0, 0, 0])": ("aten.masked_fill", ("x", "x[0, 0, 0, 0]")),
    "torch.clamp(x, min=x.flip(3))": ("aten.clamp", ("x", "x.flip(3)")),
    f"{ATEN}clamp_min.Tensor(x, x.flip(3))": ("aten.clamp_min", ("x", "x.flip(3)")),
    f"{ATEN}clamp_max.Tensor(x[:, :, 1:], x)": ("aten.clamp_max", ("x", "x[:, :, 1:]")),
}
COMPARED = {  # two streams, neither of which is a gate
    f"{ATEN}{name}.Tensor(x, x.flip(3))": f"aten.{name}"
    for name in ("gt", "ge", "lt", "le", "eq", "ne")
} | {
    f"{ATEN}pow.Tensor_Tensor(x.abs(), x.flip(3))": "aten.pow",
}
NORMALISED = {
    "F.batch_norm(x, self.mean, self.scale.abs(), self.scale, self.mean)": "aten.batch_norm",
    "F.batch_norm(x, self.mean, self.scale.abs(), training=False)": "aten.batch_norm",
    "F.batch_norm(x, None, None, self.scale, training=True)": "aten.batch_norm",
    "F.batch_norm(x.flatten(2), self.mean, self.scale.abs()).unflatten(2, (2, "
    "5))": "aten.batch_norm",
    "F.group_norm(x, 1)": "aten.group_norm",
    "F.group_norm(x, 3, self.scale, self.mean)": "aten.group_norm",
    "F.instance_norm(x)": "aten.instance_norm",
    "F.layer_norm(x, x.shape[1:])": "aten.layer_norm",
    "F.layer_norm(x, [5])": "aten.layer_norm",
    "F.layer_norm(x.permute(0, 2, 3, 1), [3], self.scale, self.mean).permute(0, 3, "
    "1, 2)": "aten.layer_norm",
    "F.rms_norm(x, [2, 5])": "aten.rms_norm",
    "F.rms_norm(x.permute(0, 2, 3, 1), [3], self.scale).permute(0, 3, 1, 2)": "aten.rms_norm",
}
NORMS = {"mean": values(3), "scale": values(3, seed=3)}
OVERWRITTEN = {
    f"{ATEN}copy(x, x.flip(3))": ("aten.copy", "x.flip(3)"),
    f"{ATEN}copy(self.like.expand_as(x), x.flip(3))": ("aten.copy", "x.flip(3)"),
    f"{ATEN}copy(x, x[:, :1])": ("aten.copy", "x[:, :1].expand_as(x)"),
    "x.clone().copy_(x.flip(3))": ("aten.copy", "x.flip(3)"),
    "torch.zeros_like(x).copy_(x)": ("aten.copy", "x"),
    f"{ATEN}fill.Tensor(x[1], x[0, 0, 1, 2])": (
        "aten.fill.Tensor",
        "x[0, :1, 1:2, 2:3].expand(3, 2, 5)",
    ),
}
CLEARED = {
    f"{ATEN}copy(x, self.like)": "aten.copy",
    "x.clone().copy_(self.like)": "aten.copy",
    f"{ATEN}fill.Scalar(x, 2.0)": "aten.fill",
    f"{ATEN}fill.Tensor(x, self.zero[0])": "aten.fill.Tensor",
    "x.clone().fill_(2.0)": "aten.fill",
    f"{ATEN}zero(x)": "aten.zero",
    "x.clone().zero_()": "aten.zero",
    f"{ATEN}type_as(self.like, x)": "aten.type_as",
}
CONVERTED = {
    "x.half()": "aten.to",
    "x.to(torch.bfloat16).float()": "aten.to",
    "x.long()": "aten.to",
    "x.to(x.device)": "aten.to",
    "x.to(self.like)": "aten.to",
    "x.bool()": "aten.to",
    "x.type(torch.float64)": "aten.to",
    "x.contiguous(memory_format=torch.channels_last)": "aten.contiguous",
}
NONNEGATIVE = {  # features of linear attention: exact
    "aten.abs": "abs(x)",
    "aten.exp": "exp(x)",
    "aten.relu": "relu(x)",
    "aten.relu6": "relu6(x)",
    "aten.sigmoid": "sigmoid(x)",
    "aten.hardsigmoid": "hardsigmoid(x)",
    "aten.softplus": "softplus(x)",
    "aten.sqrt": "sqrt(torch.abs(x))",
    "aten.square": "square(x)",
    "aten.softmax": "softmax.int(x, 2)",
    "aten._softmax": "_softmax(x, 2, False)",
    "aten.clone": "clone(torch.exp(x))",
    "aten.dropout": "dropout(torch.exp(x), 0.5, False)",
    "aten.type_as": "type_as(torch.exp(x), x)",
}
SIGNED = {
    "aten.neg": "neg(torch.exp(x))",
    "aten.alpha_dropout": "alpha_dropout(torch.exp(x), 0.5, False)",
    "aten.tanh": "tanh(x)",
    "aten.gelu": "gelu(x)",
    "aten.expm1": "expm1(x)",
    "aten.log_softmax": "log_softmax.int(x, 2)",
    "aten.log": "log(torch.exp(x))",
    "aten.clone": "clone(x)",
}


def attention(name: str, call: str, exact: bool) -> RuleCase:
    features = of(call, "x.flatten(2).mT")
    code = f"{features} @ ({features}.mT @ x.flatten(2).mT)"
    return RuleCase(name, code, linear_attention(features), {}, SMALL, approximate=not exact)


# Dropout of attention: labels mix with the probabilities before it (contract, point 4).  In place
# these are overwritten, which is no loss where nothing is dropped.
PROBABILITIES = "(x @ x.mT / 3**0.5).softmax(-1)"
DROPPED = "F.dropout({}, {}, {}, inplace={})"
NOTHING_DROPPED = (("0.3", "True", "False"), ("0.3", "False", "True"), ("0.0", "True", "True"))


def dropped(rate: str, training: str, in_place: str) -> RuleCase:
    """Attention through dropout."""
    probabilities = DROPPED.format(PROBABILITIES, rate, training, in_place)
    before = mixes(f"{PROBABILITIES}.detach() @ x", 2)
    return RuleCase("aten.dropout", f"{probabilities} @ x", before, {}, (2, 7, 3), 2)


def dropped_in_place(case: RuleCase) -> list[torch.Tensor | None]:
    """With the probabilities as dropout, seeded as the case's own, has left them."""
    torch.manual_seed(0)
    left = F.dropout(torch.ones(2, 7, 7), 0.3)
    return list(mixes(f"(self.left * {PROBABILITIES}).detach() @ x", 2, left=left)(case))


CHOSEN = PARTS | {"mask": torch.arange(30).view(SMALL[1:]) % 3 == 0}
CALLS = (*COPIES.items(), *GATES.items(), *FUNCTIONS.items())
CASES = (
    *(copies(name, call) for name, call in COPIES.items()),
    *(factors(name, call, True) for name, call in GATES.items()),
    *(factors(name, call, False) for name, call in FUNCTIONS.items()),
    *(RuleCase(name, twin(call), stays, PARTS, SMALL) for name, call in CALLS if has_twin(call)),
    *(
        RuleCase(name, code.format(layout), follows(layout), {}, SMALL)
        for index, (name, code) in enumerate(POINTWISE.items())
        for layout in (LAYOUTS if index < 2 else LAYOUTS[2:4])
    ),
    *(RuleCase("aten.softmax", code, follows(moved), {}, SMALL) for code, moved in SOFTMAX.items()),
    *(RuleCase("aten.softmax", code, truth, PARTS, SMALL) for code, truth in WEIGHTS.items()),
    RuleCase(
        "aten.softmax",
        "x.softmax(2).maximum(x.flip(3).softmax(2))",
        averages("x", "x.flip(3)"),
        {},
        SMALL,
        approximate=True,
    ),
    RuleCase("aten.log_softmax", "x.log_softmax(3)", averages("x"), {}, SMALL),
    RuleCase("aten._softmax", f"{ATEN}_softmax(x, -1, False)", averages("x"), {}, SMALL),
    RuleCase("aten._log_softmax", f"{ATEN}_log_softmax(x, 2, False)", averages("x"), {}, SMALL),
    *(RuleCase(name, code, follows(*s), CHOSEN, SMALL) for code, (name, s) in CHOICES.items()),
    *(
        RuleCase(name, code, follows(*s), CHOSEN, SMALL, approximate=True)
        for code, (name, s) in EITHER.items()
    ),
    *(RuleCase(n, c, averages("x", "x.flip(3)"), {}, SMALL) for c, n in COMPARED.items()),
    *(RuleCase(name, code, by_contract, NORMS, SMALL) for code, name in NORMALISED.items()),
    *(RuleCase(name, code, follows(s), PARTS, SMALL) for code, (name, s) in OVERWRITTEN.items()),
    *(RuleCase(name, code, no_label, PARTS, SMALL) for code, name in CLEARED.items()),
    *(RuleCase(name, code, stays, PARTS, SMALL) for code, name in CONVERTED.items()),
    *(attention(name, call, True) for name, call in NONNEGATIVE.items()),
    *(attention(name, call, False) for name, call in SIGNED.items()),
    *(dropped(*settings) for settings in NOTHING_DROPPED),
    RuleCase(
        "aten.dropout",
        f"{DROPPED.format(PROBABILITIES, '0.3', 'True', 'True')} @ x",
        dropped_in_place,
        {},
        (2, 7, 3),
        2,
        approximate=True,
    ),
    # Random draws: the label is as without them.
    RuleCase("aten.dropout", "F.dropout(x, 0.5, training=True)", by_contract, {}, SMALL),
    RuleCase("aten.feature_dropout", "F.dropout2d(x, 0.5, training=True)", by_contract, {}, SMALL),
    RuleCase("aten.alpha_dropout", "F.alpha_dropout(x, 0.5, True)", by_contract, {}, SMALL),
    RuleCase("aten.rrelu", "F.rrelu(x, training=True)", by_contract, {}, SMALL),
    # A constant that has more axes than the stream, and channels last.
    RuleCase(
        "aten.maximum",
        "torch.maximum(x, self.wide)",
        follows("x.expand(11, -1, -1, -1, -1)"),
        {"wide": values(11, 1, 3, 2, 5)},
        SMALL,
    ),
    RuleCase(
        "aten.maximum",
        "torch.maximum(x[:, :1], self.wide)",
        follows("x[:, :1].expand(-1, 13, -1, -1)"),
        {"wide": values(13, 2, 5)},
        SMALL,
    ),
    # One position for all.
    RuleCase(
        "aten.maximum",
        "torch.maximum(x[:, :, :1], self.row)",
        follows("x[:, :, :1].expand(-1, -1, 5, -1)"),
        {"row": values(5, 1)},
        SMALL,
    ),
    RuleCase(
        "aten.copy",
        "x.clone().copy_(x[:, :, :1])",
        follows("x[:, :, :1].expand(-1, -1, x.shape[2], -1)"),
        {},
        SMALL,
    ),
    RuleCase(
        "aten.fill.Tensor",
        f"{ATEN}fill.Tensor(x, x[0, 0, 1, 2])",
        follows("x[:1, :1, 1:2, 2:3].expand(x.shape)"),
        {},
        SMALL,
    ),
    RuleCase("aten.relu", "torch.relu(x)", stays, {}, LAST, 3),
    RuleCase("aten.softmax", "x.softmax(3)", stays, {}, LAST, 3),
    RuleCase("aten.softmax", "x.softmax(1)", averages("x"), {}, LAST, 3),
    RuleCase("aten.layer_norm", "F.layer_norm(x, [3])", stays, {}, LAST, 3),
)

REFUSED = (
    Refusal(
        "torch.batch_norm(x, x.mean((0, 2, 3)), None, None, None, True, 0.1, 1e-5, False)",
        "several tensors",
    ),
)
