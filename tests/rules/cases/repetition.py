"""Repetition: the operator itself, given the number of each cell."""

from tests.rules.cases.case import Refusal, RuleCase
from tests.rules.cases.expected_labels import moves, spread

ATEN = "torch.ops.aten."
REPEATED = {
    "x.repeat(1, 1, 3, 1)": "aten.repeat",
    "x.repeat(1, 1, 1, 2)": "aten.repeat",
    "x.repeat(1, 1, 3, 2)": "aten.repeat",
    "x.repeat(1, 5, 1, 1)": "aten.repeat",
    "x.repeat(3, 1, 1, 1)": "aten.repeat",
    "x.repeat(3, 2, 1, 2)": "aten.repeat",
    "x.repeat(1, 1, 1, 1)": "aten.repeat",
    "x.repeat(11, 1, 1, 1, 1)": "aten.repeat",
    "x.repeat(1, 3, 1, 1, 2, 1)": "aten.repeat",
    "x.mT.repeat(1, 1, 3, 2)": "aten.repeat",
    "x.permute(0, 2, 3, 1).repeat(1, 2, 3, 5)": "aten.repeat",
    "x.flatten(2).mT.repeat(1, 3, 5)": "aten.repeat",
    "x.permute(0, 2, 3, 1).flatten(0, 1).repeat(1, 2, 1)": "aten.repeat",
    "x.unsqueeze(2).repeat(1, 1, 11, 1, 1)": "aten.repeat",
    "x.unsqueeze(2).repeat(1, 1, 11, 1, 1).flatten(2, 3)": "aten.repeat",
    "x[:, 0].repeat(1, 3, 1)": "aten.repeat",
    "x[:, :, 1:2].repeat(1, 1, 11, 1)": "aten.repeat",
    f"{ATEN}tile(x, [3, 2])": "aten.tile",
    f"{ATEN}tile(x, [2])": "aten.tile",
    f"{ATEN}tile(x, [1, 3, 1, 2])": "aten.tile",
    f"{ATEN}tile(x.permute(0, 2, 3, 1), [11, 1, 3, 1, 2])": "aten.tile",
    "x.repeat_interleave(3, 2)": "aten.repeat_interleave.self_int",
    "x.repeat_interleave(2, -1)": "aten.repeat_interleave.self_int",
    "x.repeat_interleave(2, 1)": "aten.repeat_interleave.self_int",
    "x.repeat_interleave(3, 0)": "aten.repeat_interleave.self_int",
    "x.repeat_interleave(1, 2)": "aten.repeat_interleave.self_int",
    "x.mT.repeat_interleave(3, 2)": "aten.repeat_interleave.self_int",
    "x.permute(0, 2, 3, 1).repeat_interleave(3, 2)": "aten.repeat_interleave.self_int",
    "x.flatten(2).mT.repeat_interleave(3, 1)": "aten.repeat_interleave.self_int",
    "x.flatten(2).mT.repeat_interleave(2, 2)": "aten.repeat_interleave.self_int",
    "x.repeat_interleave(2, 2).repeat_interleave(3, 3)": "aten.repeat_interleave.self_int",
    "x.permute(0, 2, 3, 1).flatten(0, 1).repeat_interleave(2, "
    "1)": "aten.repeat_interleave.self_int",
    f"{ATEN}repeat_interleave.self_int(x, 2, 2, output_size=10)": "aten.repeat_interleave.self_int",
}

CASES = (
    *(RuleCase(name, code, moves) for code, name in REPEATED.items()),
    RuleCase("aten.repeat", "x.flatten(1, 2).repeat(1, 2, 1)", spread(moves, 1)),
    RuleCase("aten.repeat", "x.repeat(1, 2, 3, 1)", moves, shape=(2, 5, 7, 3), channel_dim=3),
)

REFUSED = (Refusal("x.repeat_interleave(2)", "flattened activation"),)
