"""Pooling: the cells of each window, as the operator itself tells them."""

from tests.rules.cases.case import Refusal, RuleCase, Truth
from tests.rules.cases.expected_labels import alike, each, mixes, no_label, on, reached

SHAPES = {1: (2, 3, 11), 2: (2, 3, 5, 7), 3: (2, 3, 2, 5, 3)}
WINDOWS = {
    1: (
        "3",
        "(3,), (2,)",
        "3, stride=1",
        "3, 2, 1",
        "3, 2, 1, ceil_mode=True",
        "4, 3, ceil_mode=True",
        "2, 3",
        "2, 3, 1, ceil_mode=True",
        "11",
    ),
    2: (
        "2",
        "(2, 3)",
        "3, 2, 1",
        "3, 2, 1, ceil_mode=True",
        "2, ceil_mode=True",
        "(3, 2), (2, 1), (1, 0)",
        "(1, 4), stride=(2, 3), ceil_mode=True",
        "3, stride=1, padding=1",
        "(5, 7)",
        "2, 3, ceil_mode=True",
    ),
    3: ("2", "(1, 3, 2), (1, 2, 1)", "(2, 3, 2), (1, 2, 2), (1, 1, 0), ceil_mode=True"),
}
COUNTED = {
    1: ("3, 2, 1, count_include_pad=False", "3, 2, 1, True, False"),
    2: (
        "3, 2, 1, count_include_pad=False",
        "3, 2, 1, ceil_mode=True, count_include_pad=False",
        "3, 2, divisor_override=5",
        "3, 2, 1, divisor_override=5",
    ),
    3: ("2, 1, 1, count_include_pad=False", "2, divisor_override=3"),
}
DILATED = {
    1: ("3, 2, dilation=2", "3, 1, 1, 4", "2, 2, 1, dilation=3, ceil_mode=True"),
    2: (
        "2, dilation=2",
        "3, 2, 1, dilation=(1, 2)",
        "(2, 3), (1, 2), (1, 1), (3, 2), ceil_mode=True",
        "2, 2, 1, dilation=(4, 2), ceil_mode=True",
    ),
    3: ("2, 1, 1, dilation=(1, 2, 1)",),
}
SIZES = {
    1: ("1", "3", "(4,)", "11", "13"),
    2: ("1", "2", "(2, 3)", "(None, 3)", "(3, None)", "(1, 5)", "(4, 11)", "(5, 7)"),
    3: ("1", "(1, 2, 2)", "(None, 3, 1)", "(3, 4, 2)"),
}


def cases(name: str, truth: Truth, settings: dict[int, tuple[str, ...]]) -> tuple[RuleCase, ...]:
    """``F.<name><n>d`` with each of the settings of its dimension."""
    return tuple(
        RuleCase(
            f"aten.{name}{count}d",
            f"F.{name}{count}d(x, {text})",
            truth,
            shape=SHAPES[count],
            approximate="max" in name,
        )
        for count, texts in settings.items()
        for text in texts
    )


INDICES = (
    *(
        RuleCase(
            f"aten.max_pool{count}d_with_indices",
            f"F.max_pool{count}d(x, {text}, return_indices=True)",
            each(reached(), no_label),
            shape=shape,
            approximate=True,
        )
        for count, shape in SHAPES.items()
        for text in ("2", "2, 1, 1, dilation=2", "2, ceil_mode=True")
    ),
    *(
        RuleCase(
            f"aten.adaptive_max_pool{count}d",
            f"F.adaptive_max_pool{count}d(x, 2, return_indices=True)",
            each(reached(), no_label),
            shape=shape,
            approximate=True,
        )
        for count, shape in SHAPES.items()
    ),
)
ELSEWHERE = (
    RuleCase(
        "aten.avg_pool2d",
        "F.avg_pool2d(x.movedim(-1, 1), 3, 2, 1).movedim(1, -1)",
        alike,
        shape=(2, 5, 7, 3),
        channel_dim=3,
    ),
    RuleCase("aten.avg_pool2d", "F.avg_pool2d(x.mT, (3, 2))", alike),
    RuleCase("aten.avg_pool2d", "F.avg_pool2d(x.mean(1), (3, 2))", alike),
    RuleCase(
        "aten.avg_pool2d",
        "F.avg_pool2d(x.movedim(2, 1).flatten(0, 1), (2, 3))",
        alike,
        shape=(2, 3, 2, 5, 4),
    ),
    RuleCase(
        "aten.max_pool2d",
        "F.max_pool2d(x.unflatten(3, (2, 3)).movedim(3, 1).flatten(0, 1), 2, 1)",
        reached(),
        shape=(2, 3, 5, 6),
        approximate=True,
    ),
    RuleCase("aten.avg_pool1d", "F.avg_pool1d(x.flatten(2), 3, 2, 1)", alike),
    RuleCase("aten.avg_pool1d", "F.avg_pool1d(x.movedim(3, 1).flatten(0, 1), 2)", alike),
    RuleCase("aten.max_pool1d", "F.max_pool1d(x.flatten(2), 3, 2)", reached(), approximate=True),
    RuleCase("aten.adaptive_avg_pool1d", "F.adaptive_avg_pool1d(x, 4).mT", alike, shape=(2, 3, 11)),
    RuleCase(
        "aten.adaptive_avg_pool2d",
        "F.adaptive_avg_pool2d(x.mT.unflatten(2, (5, 7)), (2, 3)).flatten(2).mT",
        alike,
        shape=(2, 35, 3),
        channel_dim=2,
    ),
    # Over channels nothing moves, and the largest value of a position is exact.
    RuleCase("aten.avg_pool1d", "F.avg_pool1d(x.flatten(2).mT, 2, 1)", alike),
    RuleCase("aten.max_pool1d", "F.max_pool1d(x.flatten(2).mT, 2, 1)", reached()),
    RuleCase("aten.adaptive_avg_pool1d", "F.adaptive_avg_pool1d(x.flatten(2).mT, 2)", alike),
    # Weights that are pooled with what they weigh are not applied; along channels they gate.
    *(
        RuleCase(
            f"aten.{name}",
            f"F.{name}(x * x.mean(1, keepdim=True).softmax({dim}), {size})",
            truth,
            {},
            shape,
            approximate=dim == 2,
        )
        for name, size, shape in (
            ("avg_pool1d", "3", (2, 3, 11)),
            ("avg_pool2d", "3, 2, 1", (2, 3, 5, 7)),
            ("adaptive_avg_pool1d", "4", (2, 3, 11)),
            ("adaptive_avg_pool3d", "1", (2, 3, 2, 5, 3)),
        )
        for dim, truth in ((1, alike), (2, on(f"F.{name}(x, {size})", alike)))
    ),
    # Where no label varies along space, nothing is mixed.
    RuleCase(
        "aten.avg_pool2d", "F.avg_pool2d(x.mean((2, 3), keepdim=True).expand_as(x), 2)", alike
    ),
    RuleCase(
        "aten.adaptive_avg_pool2d",
        "F.adaptive_avg_pool2d(x.mean((2, 3), keepdim=True), (3, 2))",
        alike,
    ),
    # A power mean is written out: powers, the mean, and a root that stays on its position.
    *(
        RuleCase("aten.avg_pool2d", f"F.lp_pool2d(x, 2.0, {text})", alike)
        for text in ("2", "(2, 3), (1, 2)", "2, ceil_mode=True")
    ),
    RuleCase("aten.avg_pool1d", "F.lp_pool1d(x, 2.0, 3, 2)", alike, shape=(2, 3, 11)),
)
SCORES = "x.mT @ x"
WEIGHTS = (
    # Scores of fewer keys, and of more: their mixing weights are the same.
    *(
        RuleCase(
            f"aten.{name}1d",
            f"F.{name}1d({SCORES}, 3).softmax(-1) @ F.avg_pool1d(x, {text}).mT",
            mixes(f"F.{name}1d({SCORES}, 3).softmax(-1).detach() @ F.avg_pool1d(x, {text}).mT", 2),
            shape=(2, 5, size),
        )
        for name, text, size in (("avg_pool", "3", 11), ("adaptive_avg_pool", "3, 2", 7))
    ),
)
CASES = (
    *WEIGHTS,
    *cases("avg_pool", alike, WINDOWS),
    *cases("avg_pool", alike, COUNTED),
    *cases("max_pool", reached(), WINDOWS),
    *cases("max_pool", reached(), DILATED),
    *cases("adaptive_avg_pool", alike, SIZES),
    *cases("adaptive_max_pool", reached(), SIZES),
    *INDICES,
    *ELSEWHERE,
)

REFUSED = (
    # To the operator each sample's tokens (N, C) are a channel's map, with channels along one side.
    *(
        Refusal(f"F.{code}", "an axis of space is not made of positions: 3 channel")
        for code in (
            "avg_pool2d(x.flatten(2).mT, 3)",
            "max_pool2d(x.flatten(2).mT, (3, 1))",
            "adaptive_avg_pool2d(x.flatten(2).mT, 2)",
        )
    ),
)
UNREACHABLE = {
    "aten.lp_pool2d": "no release of torch has the operator: `F.lp_pool2d` is Python over others"
}
