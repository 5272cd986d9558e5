"""Interpolation: the operator's own matrix; negative weights count by their magnitude."""

from __future__ import annotations

from tests.rules.cases.case import RuleCase
from tests.rules.cases.expected_labels import alike, mixes

SHAPES = {1: (2, 3, 13), 2: (2, 3, 5, 7), 3: (2, 2, 2, 5, 3)}
SIZES = {1: ("7", "(17,)", "1"), 2: ("(3, 11)", "(7, 4)", "13"), 3: ("(3, 4, 5)",)}
FACTORS = {
    1: ("3", "0.4", "(1.7,)"),
    2: ("2", "(0.6, 1.7)", "(1.3, 0.5)"),
    3: ("(2, 0.7, 1.5)",),
}
MODES = {
    "upsample_nearest1d": "nearest",
    "upsample_nearest2d": "nearest",
    "upsample_nearest3d": "nearest",
    "_upsample_nearest_exact1d": "nearest-exact",
    "_upsample_nearest_exact2d": "nearest-exact",
    "_upsample_nearest_exact3d": "nearest-exact",
    "upsample_linear1d": "linear",
    "upsample_bilinear2d": "bilinear",
    "upsample_trilinear3d": "trilinear",
    "upsample_bicubic2d": "bicubic",
}
SMOOTH = ("linear", "bilinear", "trilinear", "bicubic")


def interpolation(name: str, settings: str, dimensions: int) -> RuleCase:
    code = f"F.interpolate(x, {settings})"
    return RuleCase(f"aten.{name}", code, mixes(channel_dim=None), shape=SHAPES[dimensions])


def cases() -> list[RuleCase]:
    """Every operator, up and down, by sizes and by factors."""
    found = []
    for name, mode in MODES.items():
        count = int(name[-2])
        texts = [f"size={size}" for size in SIZES[count]]
        texts += [f"scale_factor={factor}" for factor in FACTORS[count]]
        texts.append(f"scale_factor={FACTORS[count][-1]}, recompute_scale_factor=True")
        texts = [f"{text}, mode='{mode}'" for text in texts]
        if mode in SMOOTH:
            texts += [f"{text}, align_corners=True" for text in texts[:-1]]
        found += [interpolation(name, text, count) for text in texts]
        if mode in ("bilinear", "bicubic"):
            filtered = [f"{text}, antialias=True" for text in texts[::2]]
            found += [interpolation(f"_{name}_aa", text, count) for text in filtered]
    return found


def called(call: str, dimensions: int = 2) -> RuleCase:
    """The operator's plain overload, which has a factor for each side of its own."""
    name = f"aten.{call.partition('(')[0]}"
    return RuleCase(
        name, f"torch.ops.aten.{call}", mixes(channel_dim=None), shape=SHAPES[dimensions]
    )


PLAIN = (
    called("upsample_nearest1d(x, [11])", 1),
    called("upsample_nearest1d(x, [22], 1.7)", 1),
    called("upsample_linear1d(x, [22], False, 1.7)", 1),
    called("upsample_nearest2d(x, [8, 4], 1.7, 0.6)"),
    called("_upsample_nearest_exact2d(x, [8, 4], 1.7, 0.6)"),
    called("upsample_bilinear2d(x, [8, 4], False, 1.7, 0.6)"),
    called("upsample_bilinear2d(x, [8, 4], False)"),
    called("upsample_bicubic2d(x, [8, 4], False, None, 0.6)"),
    called("upsample_bicubic2d(x, [8, 4], True, 1.7, 0.6)"),
    called("_upsample_bilinear2d_aa(x, [8, 4], False, 1.7, 0.6)"),
    called("upsample_trilinear3d(x, [3, 3, 4], False, 1.7, 0.7, 1.5)", 3),
    called("upsample_nearest3d(x, [3, 3, 4], 1.7, 0.7, 1.5)", 3),
)
ELSEWHERE = (
    RuleCase(
        "aten.upsample_bilinear2d",
        "F.interpolate(x.movedim(-1, 1), (3, 11), mode='bilinear').movedim(1, -1)",
        mixes(channel_dim=None),
        shape=(2, 5, 7, 3),
        channel_dim=3,
    ),
    RuleCase(
        "aten.upsample_bicubic2d",
        "F.interpolate(x.mT.unflatten(2, (5, 7)), (4, 11), mode='bicubic').flatten(2).mT",
        mixes(channel_dim=None),
        shape=(2, 35, 3),
        channel_dim=2,
    ),
    RuleCase(
        "aten.upsample_nearest2d",
        "F.interpolate(x.movedim(2, 1).flatten(0, 1), scale_factor=2)",
        mixes(channel_dim=None),
        shape=(2, 3, 3, 2, 5),
    ),
    RuleCase(
        "aten.upsample_linear1d",
        "F.interpolate(x.flatten(2), 17, mode='linear')",
        mixes(channel_dim=None),
    ),
    RuleCase(
        "aten.upsample_linear1d",
        "F.interpolate(x.movedim(2, 1).flatten(0, 1), 11, mode='linear')",
        mixes(channel_dim=None),
    ),
    # Scores of more keys.
    RuleCase(
        "aten.upsample_nearest1d",
        "F.interpolate(x.mT @ x, 14).softmax(-1) @ F.interpolate(x, 14).mT",
        mixes("F.interpolate(x.mT @ x, 14).softmax(-1).detach() @ F.interpolate(x, 14).mT", 2),
        shape=(3, 5, 7),
    ),
    # The channels of tokens (B, N, C) resampled: nothing moves.
    RuleCase(
        "aten.upsample_linear1d",
        "F.interpolate(x.flatten(2).mT, 5, mode='linear')",
        alike,
    ),
    RuleCase(
        "aten.upsample_bilinear2d",
        "F.interpolate(x.mean((2, 3), keepdim=True), (2, 3), mode='bilinear')",
        alike,
    ),
)
CASES = (*cases(), *PLAIN, *ELSEWHERE)
