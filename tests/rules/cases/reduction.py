"""Reductions: every cell that takes part counts the same, as the operator itself tells them."""

from __future__ import annotations

from typing import Any

from tests.rules.cases.case import Refusal, RuleCase, Truth, values
from tests.rules.cases.expected_labels import alike, each, mixes, no_label, reached

DIMS = (
    "2",
    "-1",
    "1",
    "-3, keepdim=True",
    "0",
    "3, keepdim=True",
    "(2, 3)",
    "(-1, 1)",
    "(1, 2, 3)",
    "(0, 3)",
    "(2, -1), keepdim=True",
    "(3, 1), keepdim=True",
    "(0, 1, 2, 3)",
)
ONE = DIMS[:6]
FEW = ("2", "1", "(2, -1), keepdim=True", "(3, 1)")


def selects(dims: str) -> bool:
    """Whether an extreme over these axes of (B, C, H, W) chooses among positions."""
    return dims.partition(", keepdim")[0] not in ("1", "-3")


def reduction(
    name: str, code: str, truth: Truth = alike, approximate: bool = False, **settings: object
) -> RuleCase:
    return RuleCase(f"aten.{name}", code, truth, approximate=approximate, **settings)


SUMS = (
    *(reduction("mean", f"x.mean({dims})") for dims in (*DIMS, "", "[]")),
    *(reduction("sum", f"x.sum({dims})") for dims in (*FEW, "", "[]", "(0, 3)")),
    *(reduction("nansum", f"torch.nansum(x, {dims})") for dims in FEW),
    *(reduction("nanmean", f"torch.nanmean(x, {dims})") for dims in FEW),
    reduction("mean", "x.mean((2, 3), dtype=torch.float64)"),
    reduction("sum", "x.sum(dtype=torch.float64)"),
    reduction("nansum", "torch.nansum(x)"),
    reduction("nanmean", "torch.nanmean(x)"),
)
MOMENTS = (
    *(
        reduction(f"{name}_mean", f"torch.{name}_mean(x, {dims})", each(alike, alike))
        for name in ("var", "std")
        for dims in FEW
    ),
    *(reduction("logsumexp", f"torch.logsumexp(x, {dims})") for dims in (*FEW, "(0, 1, 2, 3)")),
    *(
        reduction("linalg_vector_norm", f"torch.linalg.vector_norm(x, {order}, {dims})")
        for order in ("2", "1", "-3.5")
        for dims in FEW
    ),
    *(
        reduction(
            "linalg_vector_norm",
            f"torch.linalg.vector_norm(x, {order}, {dims})",
            truth,
            approximate=selects(dims),
        )
        for order, truth in (("torch.inf", reached()), ("-torch.inf", reached(1, 0)))
        for dims in ("1", "2", "(2, 3)")
    ),
    reduction("linalg_vector_norm", "torch.linalg.vector_norm(x)"),
    reduction("linalg_vector_norm", "torch.linalg.vector_norm(x, keepdim=True)"),
    reduction("linalg_vector_norm", "torch.norm(x, 2, 2)"),
    *(reduction("linalg_norm", f"torch.linalg.norm(x, dim={dims})") for dims in ("2", "(2, 3)")),
    reduction("linalg_norm", "torch.linalg.norm(x, 2, 1, keepdim=True)"),
    reduction("linalg_norm", "torch.linalg.norm(x, 'fro', (1, 3))"),
    reduction("linalg_norm", "torch.linalg.norm(x)"),
    *(
        reduction("linalg_norm", f"torch.linalg.norm(x, {order}, (2, 3))", truth, True)
        for order, truth in (("torch.inf", reached()), ("1", reached()))
    ),
    *(reduction("norm", f"torch.ops.aten.norm(x{text})") for text in ("", ", 3", ", 2, [2]")),
    reduction("norm", "torch.ops.aten.norm(x, None, [-1, 1], True)"),
    reduction("norm", "torch.ops.aten.norm(x, 2, [1, 3], False, dtype=torch.float64)"),
    reduction("norm", "torch.ops.aten.norm(x, torch.inf, [2])", reached(), True),
    *(reduction(name, f"x.{name}({dims})") for name in ("std", "var") for dims in (*FEW, "", "0")),
    *(
        reduction(name, f"x.{name}({text})")
        for name in ("std", "var")
        for text in (
            "(2, 3), correction=0",
            "2, correction=2, keepdim=True",
            "None, correction=0, keepdim=True",
            "[]",
            "(-1, 1), unbiased=False",
            "unbiased=False",
        )
    ),
    *(reduction("prod", f"x.prod({dims})") for dims in (*ONE, "")),
)
EXTREMES = (
    *(
        reduction(name, f"{call}x, {dims})", truth, selects(dims))
        for name, call, truth in (
            ("amax", "torch.amax(", reached()),
            ("amin", "torch.amin(", reached(0, -1)),
            ("any", "torch.any(", reached()),
            ("all", "torch.all(", reached(1, 0)),
        )
        for dims in (*FEW, "0", "(0, 2)", "(0, 1, 2, 3)")
    ),
    reduction("amax", "x.amax()", reached(), True),
    reduction("amin", "x.amin(keepdim=True)", reached(0, -1), True),
    reduction("amax", "x.amax(())", reached(), True),
    reduction("any", "torch.any(x)", reached(), True),
    reduction("any", "(x > 0.5).any(3)", reached(), True),
    reduction("all", "torch.all(x)", reached(1, 0), True),
    *(
        reduction(f"{name}.dim", f"x.{name}({dims})", each(truth, no_label), selects(dims))
        for name, truth in (("max", reached()), ("min", reached(0, -1)))
        for dims in ONE
    ),
    reduction("max.dim", "x.max(2).values", reached(), True),
    reduction("min.dim", "torch.min(x, dim=-1).indices", no_label, True),
    *(
        reduction(
            name,
            f"torch.{name.partition('.')[0]}(x, {dims})",
            each(mixes(f"x.mean({dims})", None), no_label),
            selects(dims),
        )
        for name in ("median.dim", "mode")
        for dims in ONE
    ),
    reduction("mode", "torch.mode(x)", each(mixes("x.mean(-1)", None), no_label), True),
    reduction("max", "x.max()", reached(), True),
    reduction("min", "x.min()", reached(0, -1), True),
    reduction("median", "x.median()", mixes("x.mean()", None), True),
    *(
        reduction(name, f"x.{name}({text})", no_label)
        for name in ("argmax", "argmin")
        for text in ("", "2", "1", "-1, keepdim=True", "keepdim=True")
    ),
)
LAST = {"shape": (2, 5, 7, 3), "channel_dim": 3}
WINDOWS = "x.unflatten(3, (2, 3)).movedim(3, 1).flatten(0, 1)"
SCORES = "x.mT @ x"
ELSEWHERE = (
    *(reduction("mean", f"x.mean({dims})", **LAST) for dims in ("(1, 2)", "-1", "1", "(-1, -2)")),
    reduction("amax", "x.amax((1, 2))", reached(), True, **LAST),
    reduction("amax", "x.amax(-1)", reached(), **LAST),
    *(
        reduction("mean", f"x.{code}")
        for code in (
            "flatten(2).mT.mean(1)",
            "flatten(2).mean(-1, keepdim=True)",
            "flatten(1).mean(1)",
            "flatten(1, 2).mean(1)",
            "flatten(1).mean(-1, keepdim=True)",
            "flatten(0, 1).mean(0)",
            "mT.mean(2)",
            "unsqueeze(1).mean((1, 3))",
            "mean((2, 3)).mean(0)",
            "unflatten(1, (1, 3)).mean(1)",
        )
    ),
    *(
        reduction("mean", f"{WINDOWS}.mean({dims})", shape=(2, 3, 5, 6))
        for dims in ("(2, 3)", "1", "0", "(1, 3), keepdim=True")
    ),
    reduction("amin", f"{WINDOWS}.amin((2, 3))", reached(0, -1), True, shape=(2, 3, 5, 6)),
    # A reduction of scores is a part of the mixing weights.
    *(
        reduction(
            name,
            f"({code}) @ x.mT",
            mixes(f"({stand_in}).detach() @ x.mT", channel_dim=2),
            shape=(2, 3, 11),
        )
        for name, code, stand_in in (
            (
                "amax",
                f"({SCORES} - ({SCORES}).amax(-1, keepdim=True)).softmax(-1)",
                f"({SCORES}).softmax(-1)",
            ),
            (
                "logsumexp",
                f"({SCORES} - ({SCORES}).logsumexp(-1, keepdim=True)).exp()",
                f"({SCORES}).softmax(-1)",
            ),
            (
                "sum",
                f"({SCORES}).exp() / ({SCORES}).exp().sum(2, keepdim=True)",
                f"({SCORES}).softmax(-1)",
            ),
            ("mean", f"torch.stack(({SCORES}, {SCORES} / 3), 1).mean(1)", SCORES),
        )
    ),
)
# A stream times weights for its positions, summed over these: the weights mix it (point 4).
TOKENS = {"shape": (2, 7, 3), "channel_dim": 2}
PARTS = {
    "dense": values(7, 3),
    "each": values(7 * 3, 3, seed=1),
    "one": values(1, 3, seed=2),
    "heads": values(5, 3, seed=3),
    "scale": values(3, seed=5),
    "places": values(7, 1, seed=6),
    "matrix": values(7, 7, seed=7),
    "kernel": values(9, 3, 1, 1, seed=4),
}
PAIRWISE = {
    "(x @ x.mT)": "[..., None] * x[:, None]",
    "(x @ x.mT).relu()": "[..., None] * x[:, None]",
    "(x @ x.mT).softmax(-1)": "[..., None] * x[:, None]",
    "(x @ x.mT).sigmoid().clone()": "[..., None].expand(-1, -1, -1, 3) * x[:, None]",
    "(x @ x.mT).tanh().exp()": "[..., None] * x[:, None].expand(-1, 7, -1, -1)",
    # A kernel of distances, which no softmax has made weights.
    "(x[:, :, None] - x[:, None]).square().sum(3).neg().exp()": "[..., None] * x[:, None]",
    # No queries: each token says by itself how much it takes of the others.
    "F.linear(x, self.dense)": "[..., None] * x[:, None]",
    "F.linear(x, self.dense).softmax(-1)": "[..., None] * x[:, None]",
    "F.linear(x, self.each).unflatten(2, (7, 3))": " * x[:, None]",
    "F.linear(x, self.dense).exp()": "[..., None] * x[:, None].expand(-1, 7, -1, -1)",
    # A learned matrix, the same for all images.
    "self.matrix": "[..., None] * x[:, None]",
    "self.matrix.softmax(-1)": "[None, ..., None] * x[:, None].expand(-1, 7, -1, -1)",
}
FORMS = (
    "({}).sum(2)",
    "(-2 * ({})).mean(2)",
    "(({}) / 3).to(x.dtype).sum(2, keepdim=True).squeeze(2)",
    "({}).clone().sum((2, 3), keepdim=True).flatten(2)",
)


def weighed(
    name: str,
    weights: str,
    rest: str,
    form: str = "({}).sum(2)",
    dim: int | None = 2,
    **setting: Any,
) -> RuleCase:
    """The code with weights held fast says how they mix."""
    truth = mixes(form.format(f"({weights}).detach(){rest}"), dim)
    return reduction(name, form.format(f"{weights}{rest}"), truth, parts=PARTS, **setting)


ATTENTION = "F.linear(x, self.one).softmax(1)"
TEMPERED = "((x @ x.mT).exp() * F.linear(x, self.one).exp().mT)"
BY_HEAD = "((x @ x.mT)[:, None] * F.linear(x, self.heads).mT[..., None]).exp()"
WEIGHED = (
    *(
        weighed("mean" if "mean" in form else "sum", weights, rest, form, **TOKENS)
        for weights, rest in PAIRWISE.items()
        for form in FORMS
        if "each" not in weights or "(2, 3)" not in form  # a matrix a channel: not one Jacobian
    ),
    *(
        weighed("sum", weights, rest, "({}).sum(1)", 1, **TOKENS)
        for weights, rest in (
            ("F.linear(x.mean(1), self.dense)", "[..., None] * x"),
            (ATTENTION, " * x"),
            (ATTENTION, ".mul(x)"),
            ("self.places", " * x"),
            ("self.places", ".mul(x) / -3"),
            ("self.places", ".mT.mT * x.clone()"),
            (ATTENTION, " * x.clone().mul_(3)"),
        )
    ),
    reduction(
        "sum",
        "x.clone().mul_(self.places).sum(1)",
        mixes("(x * self.places).sum(1)"),
        parts=PARTS,
        **TOKENS,
    ),
    weighed(  # an involution: the pixel in the middle says how its neighbors are mixed
        "sum",
        "F.conv2d(x[:, :, 1:-1, 1:-1], self.kernel)",
        "[:, None] * F.unfold(x, 3).unflatten(2, (3, 5)).unflatten(1, (3, 9))",
        dim=1,
    ),
    # What scales scores makes other scores, whose sums are part of the weights.
    weighed("sum", f"{TEMPERED} / {TEMPERED}.sum(-1, keepdim=True)", " @ x", "{}", **TOKENS),
    reduction(
        "sum",
        f"{TEMPERED} @ x / {TEMPERED}.sum(-1, keepdim=True)",
        mixes(f"{TEMPERED}.detach() @ x", 2),
        parts=PARTS,
        **TOKENS,
    ),
    reduction(
        "sum",
        f"{BY_HEAD} / {BY_HEAD}.sum(-1, keepdim=True) @ x[:, None]",
        mixes(f"{BY_HEAD}.detach() @ x[:, None]", (1, 3)),
        parts=PARTS,
        **TOKENS,
    ),
    # A gate is ignored, and so are weights that are no longer at hand, which is approximate.
    *(
        reduction(name, code, mixes("x.sum(1)", 1), approximate, parts=PARTS, **TOKENS)
        for name, code, approximate in (
            ("sum", "(x * F.linear(x, self.one).sigmoid()).sum(1)", False),
            ("mean", "(x * F.linear(x, self.one)).mean(1)", False),
            ("mean", f"-(x * {ATTENTION} * self.scale / x.mean((1, 2), True)).mean(1)", True),
            ("sum", f"(x * {ATTENTION} + self.scale).flip(1).sum(1)", True),
            ("sum", f"(x * {ATTENTION}).mT.sum(2)", True),
            ("sum", "(x * self.places + self.scale).sum(1)", True),
            ("sum", "(x / self.places).sum(1)", True),
            ("sum", "x.masked_fill(self.places > 0, 0.0).sum(1)", True),
            ("mean", "torch.where(self.places > 0, x, self.scale).mean(1)", True),
            ("mean", "torch.where(F.linear(x, self.one) > 0, x, self.scale).mean(1)", False),
            ("mean", "(x * self.scale).mean(1)", False),
            ("mean", f"F.linear((x * {ATTENTION}).mT.clone().mT, self.heads[:3]).mean(1)", True),
            ("sum", f"{ATTENTION}.expand(-1, -1, 3).clone().mul_(x).sum(1)", True),
            ("sum", f"(lambda w: (w * x, w.zero_())[0].sum(1))({ATTENTION})", True),
        )
    ),
)
CASES = (*SUMS, *MOMENTS, *EXTREMES, *ELSEWHERE, *WEIGHED)

REFUSED = tuple(
    Refusal(code, "summed over positions after another step", PARTS, **TOKENS)
    for code in (
        "((x @ x.mT)[..., None] * x[:, None]).movedim(2, 3).sum(3)",
        "((x @ x.mT)[..., None] * x[:, None] * self.scale).mean(2)",
        "((x @ x.mT)[..., None] * x[:, None] / (x @ x.mT).sum(-1)[..., None, None]).sum(2)",
    )
)
