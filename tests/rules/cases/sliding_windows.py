"""Windows: cut out they move values, laid back they are averaged."""

from __future__ import annotations

from tests.rules.cases.case import Refusal, RuleCase, Truth
from tests.rules.cases.expected_labels import PADDED, alike, moves, on, spread


def windows(
    name: str, code: str, truth: Truth, *, shape: tuple[int, ...] = (2, 3, 5, 7), dim: int = 1
) -> RuleCase:
    return RuleCase(f"aten.{name}", code, truth, shape=shape, channel_dim=dim)


def unfolded(arguments: str, padding: int = 0) -> RuleCase:
    """Windows as columns: the places inside a window are averaged, as they stand for channels."""
    padded = f"F.pad(x, {(padding,) * 4}, value={PADDED})" if padding else "x"
    by_hand = on(f"F.unfold({padded}, {arguments})", spread(moves, 1))
    extra = f", padding={padding}" if padding else ""
    return windows("im2col", f"F.unfold(x, {arguments}{extra})", by_hand)


def beside_one_row(copies: int, padding: tuple[int, int]) -> RuleCase:
    """What windows see of the padding beside a row, or copies of it, carries the prior."""
    rows = f"x[:, :, 2, None].expand(-1, -1, {copies}, -1)"
    high, wide = padding
    padded = f"F.pad({rows}, {(wide, wide, high, high)}, value={PADDED})"
    by_hand = on(f"F.unfold({padded}, (3, 2))", spread(moves, 1))
    return windows("im2col", f"F.unfold({rows}, (3, 2), padding={padding})", by_hand)


def fold_of(columns: str, sizes: tuple[int, int], arguments: str, **settings: object) -> RuleCase:
    """Everything that lands on a position counts alike."""
    return windows("col2im", f"F.fold({columns}, {sizes}, {arguments})", alike, **settings)


ONE_COLUMN = "x[..., 0, None].expand_as(x).flatten(2)"
"""Places (5 by 7) whose label is another in each row, and the same all along it."""

ONE_ROW = "x[:, :, 0, None].expand_as(x).flatten(2)"


CASES = (
    windows("unfold", "x.unfold(2, 3, 1)", moves),
    windows("unfold", "x.unfold(-1, 2, 2)", moves),
    windows("unfold", "x.unfold(3, 3, 4)", moves),
    windows("unfold", "x.unfold(1, 3, 2)", moves, shape=(2, 7, 3), dim=2),
    windows("unfold", "x.unfold(1, 2, 1)", moves),  # windows of channels
    unfolded("3"),
    unfolded("(2, 3), stride=(1, 2)"),
    unfolded("2, dilation=(3, 2)"),
    unfolded("3, stride=2", padding=1),
    beside_one_row(1, (1, 0)),
    beside_one_row(1, (2, 1)),
    beside_one_row(4, (1, 1)),
    beside_one_row(4, (0, 1)),
    fold_of("x.flatten(2).repeat(1, 4, 1)", (6, 8), "2"),
    fold_of("x.flatten(2).repeat(1, 6, 1)", (11, 13), "(3, 2), stride=2, padding=(0, 1)"),
    fold_of("x.flatten(2).repeat(1, 4, 1)", (7, 9), "2, dilation=2"),
    fold_of("x.flatten(2).repeat(1, 4, 1)", (2, 36), "2"),
    fold_of("x.flatten(2).repeat(1, 2, 1)", (36, 1), "(2, 1)"),
    fold_of("x.flatten(2).repeat(1, 6, 1)", (15, 14), "(3, 2), stride=(3, 2)"),
    fold_of(f"{ONE_COLUMN}.repeat(1, 6, 1)", (6, 9), "(2, 3)"),
    fold_of(f"{ONE_ROW}.repeat(1, 6, 1)", (8, 9), "(2, 3), stride=2, padding=(1, 3)"),
    fold_of(f"{ONE_ROW}.repeat(1, 6, 1)", (10, 21), "(2, 3), stride=(2, 3)"),
)

REFUSED = (
    Refusal(
        "x.transpose(1, 2).flatten(1, 2).unfold(1, 5, 5)", "an axis that is not of space alone"
    ),
    Refusal(
        "F.fold(x.unflatten(2, (3, 2)).unflatten(1, (4, 2)).permute(0, 1, 3, 4, 2, 5)"
        ".flatten(1, 4), (2, 8), 2)",
        "windows of positions and channels are folded",
        shape=(2, 8, 6, 7),
    ),
    Refusal(  # between the windows stands what has no label
        f"F.fold({ONE_COLUMN}, (5, 13), 1, stride=(1, 2))",
        "windows of positions and channels are folded: 5 position . 7 repeated",
    ),
)
