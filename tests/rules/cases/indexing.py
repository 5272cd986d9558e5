"""Selections: the operator itself, given the number of each cell."""

import torch

from tests.rules.cases.case import Refusal, RuleCase
from tests.rules.cases.expected_labels import moves, spread

ATEN = "torch.ops.aten."
LAYOUTS = (
    "x",
    "x.permute(0, 2, 3, 1)",
    "x.permute(0, 3, 1, 2)",
    "x.flatten(2).mT",
    "x.permute(0, 2, 3, 1).flatten(0, 1)",
    "x.permute(2, 3, 0, 1)",
)
"""Channels first and last, columns before rows, tokens, rows folded into the batch."""

PARTS = {
    "x[:, :, 1:3]": "aten.slice",
    "x[:, :, -3:]": "aten.slice",
    "x[:, :, -99:4:3]": "aten.slice",
    "x[:, :, 1:99:2]": "aten.slice",
    "x[..., ::3]": "aten.slice",
    "x[..., 5:6]": "aten.slice",
    "x[..., :-2]": "aten.slice",
    "x[:, 1:3]": "aten.slice",
    "x[:, ::2]": "aten.slice",
    "x[:, -1:]": "aten.slice",
    "x[1:]": "aten.slice",
    "x[:1]": "aten.slice",
    "x[:-1]": "aten.slice",
    "x[::2]": "aten.slice",
    "x.permute(0, 2, 3, 1).flatten(0, 2)[3:-4]": "aten.slice",
    "x[-1:]": "aten.slice",
    "x[:, 1:, 2:, 3:]": "aten.slice",
    "x.flatten(2)[..., 3:30:4]": "aten.slice",
    "x.flatten(2)[:, :, 1:].mT": "aten.slice",
    "x.flatten(1)[:, :70].unflatten(1, (2, 35))": "aten.slice",
    f"{ATEN}slice.Tensor(x, -1, -4, 6, 2)": "aten.slice",
    f"{ATEN}narrow(x, 2, 1, 3)": "aten.narrow",
    f"{ATEN}narrow(x, -1, -3, 2)": "aten.narrow",
    f"{ATEN}narrow(x, 1, 0, 2)": "aten.narrow",
    "x[:, :, 2]": "aten.select",
    "x[..., -2]": "aten.select",
    "x[:, 2]": "aten.select",
    "x[1]": "aten.select",
    "x[-1, :, 2]": "aten.select",
    "x[:, 0, 1]": "aten.select",
    "x[1, 2, 3, 4]": "aten.select",
    "x.select(-2, -5)": "aten.select",
    "x[:, :, torch.tensor(2)]": "aten.select",
    "x.unbind(2)": "aten.unbind",
    "x.unbind(-1)": "aten.unbind",
    "x.unbind(1)": "aten.unbind",
    "x[:, 1:2].unbind(1)": "aten.unbind",
    "x[:, :, 1:].mT.unbind(-1)": "aten.unbind",
    "x.chunk(2, 2)": "aten.chunk",
    "x.chunk(3, -1)": "aten.chunk",
    "x.chunk(4, 2)": "aten.chunk",
    "x.chunk(2, 1)": "aten.chunk",
    "x.chunk(1, 2)": "aten.chunk",
    "x.split(2, 2)": "aten.split",
    "x.split(3, -1)": "aten.split",
    "x.split(2, 1)": "aten.split",
    "x.split([1, 3, 1], 2)": "aten.split_with_sizes",
    "x.split([2, 5], -1)": "aten.split_with_sizes",
    "x.split([1, 2], 1)": "aten.split_with_sizes",
    "x.flatten(2).mT.split([11, 1, 23], 1)": "aten.split_with_sizes",
    f"{ATEN}split.Tensor(x, 2, -2)": "aten.split",
    f"{ATEN}split.sizes(x, [1, 4], 2)": "aten.split",
    "x.tensor_split(3, 3)": "aten.tensor_split",
    "x.tensor_split(2, -2)": "aten.tensor_split",
    "x.tensor_split((1, 4), 2)": "aten.tensor_split",
    "x.tensor_split((2,), 1)": "aten.tensor_split",
}
REORDERED = {
    "x.roll(1, 2)": "aten.roll",
    "x.roll(-2, -1)": "aten.roll",
    "x.roll(11, 2)": "aten.roll",
    "x.roll((1, -9), (2, 3))": "aten.roll",
    "x.roll((-1, 2), (-1, -2))": "aten.roll",
    "x.roll((1, 1), (2, 2))": "aten.roll",
    "x.roll((1, 2), (1, 3))": "aten.roll",
    "x.roll(1, 1)": "aten.roll",
    "x.roll(1, 0)": "aten.roll",
    "x.roll((1, 2, 3), (0, 2, 3))": "aten.roll",
    "x.flatten(2).roll(4, 2)": "aten.roll",
    "x.flip(2)": "aten.flip",
    "x.flip(-1)": "aten.flip",
    "x.flip(2, 3)": "aten.flip",
    "x.flip((1, -1))": "aten.flip",
    "x.flip(1)": "aten.flip",
    "x.flip(0)": "aten.flip",
    "x.flip(0, 1, 2, 3)": "aten.flip",
    "x.fliplr()": "aten.fliplr",
    "x.mT.transpose(1, 2).fliplr()": "aten.fliplr",
    "x.flipud()": "aten.flipud",
    "x.movedim(2, 0).flipud()": "aten.flipud",
}
INDEX = torch.tensor([3, 0, 3, 1])
SIGNED = torch.tensor([-1, 2, 0, -2, -2])
TABLE = torch.tensor([[0, 1, -1], [2, 2, 1]])
INDEXED = {
    "x.index_select(2, self.index)": ("aten.index_select", INDEX),
    "x.index_select(-1, self.index)": ("aten.index_select", INDEX),
    "x.index_select(1, self.index)": ("aten.index_select", torch.tensor([2, 0, 1, 1])),
    "x.index_select(0, self.index)": ("aten.index_select", torch.tensor([1, 0, 1])),
    "x.flatten(2).index_select(2, self.index)": ("aten.index_select", INDEX),
    "x[:, :, self.index]": ("aten.index", SIGNED),
    "x[:, self.index]": ("aten.index", SIGNED),
    "x[..., self.index]": ("aten.index", SIGNED),
    "x.mT[:, :, self.index]": ("aten.index", SIGNED),
    "x.permute(0, 2, 3, 1)[:, :, self.index]": ("aten.index", SIGNED),
    "x.flatten(2).mT[:, self.index]": ("aten.index", SIGNED),
    "x[:, :, self.index].flatten(2)": ("aten.index", TABLE),
    "x[:, :, self.index].permute(0, 3, 4, 1, 2)": ("aten.index", TABLE),
    "x[:, :, self.index]  # a mask": ("aten.index", torch.tensor([True, False, True, True, False])),
    "x[:, self.index]  # a mask": ("aten.index", torch.tensor([True, False, True])),
    "x[:, :, self.index]  # a mask of two axes": (
        "aten.index",
        torch.arange(35).view(5, 7) % 3 == 0,
    ),
    "x[self.index]  # a mask of the batch": ("aten.index", torch.tensor([False, True])),
    "x[:, :, self.index]  # a table": ("aten.index", TABLE),
    "x[..., self.index]  # a table": ("aten.index", TABLE),
    "x[:, self.index]  # a table": ("aten.index", TABLE),
    "x.flatten(2)[:, :, self.index]": ("aten.index", torch.arange(34, -1, -1).view(7, 5)),
    "x[:, :, [1, -1]]": ("aten.index", INDEX),
}

CASES = (
    *(RuleCase(name, code, moves) for code, name in PARTS.items()),
    *(RuleCase(name, code, moves) for code, name in REORDERED.items()),
    *(RuleCase(name, code, moves, {"index": index}) for code, (name, index) in INDEXED.items()),
    *(RuleCase("aten.slice", f"{to}[:, 1:-1]", moves) for to in LAYOUTS),
    *(RuleCase("aten.select", f"{to}[:, -2]", moves) for to in LAYOUTS),
    *(RuleCase("aten.unbind", f"{to}[:, -3:].unbind(1)", moves) for to in LAYOUTS),
    *(
        RuleCase("aten.split_with_sizes", f"{to}.split([1, 2, {to}.shape[1] - 3], 1)", moves)
        for to in LAYOUTS[1:-1]
    ),
    *(RuleCase("aten.roll", f"{to}.roll((-2, 1), (1, 2))", moves) for to in LAYOUTS),
    *(RuleCase("aten.flip", f"{to}.flip(1, 2)", moves) for to in LAYOUTS),
    *(
        RuleCase(
            "aten.index_select",
            f"{to}.index_select(1, self.index)",
            moves,
            {"index": INDEX[-3:-1].clamp_max(2)},
        )
        for to in LAYOUTS
    ),
    RuleCase("aten.slice", "x[:, 1:, 2:]", moves, shape=(2, 5, 7, 3), channel_dim=3),
    RuleCase("aten.roll", "x.roll((1, 2), (1, -2))", moves, shape=(2, 5, 7, 3), channel_dim=3),
    RuleCase("aten.slice", "x.flatten(1, 2)[:, 5:10]", spread(moves, 1)),
    RuleCase("aten.slice", "x.flatten(1)[:, 35:]", spread(moves, 1)),
    RuleCase("aten.slice", "x.flatten(1, 2)[:, :10].unflatten(1, (2, 5))", moves),
)

INDICES = {"one": torch.tensor([1, 2]), "two": torch.tensor([3, 0])}
REFUSED = (
    Refusal("x[:, :, self.one[0]]", "computed from values", INDICES),
    Refusal("x.flatten(1, 2)[:, 1:7]", "cuts through an axis"),
    Refusal("x.flatten(1, 2)[:, ::5]", "cuts through an axis"),
    Refusal("x.permute(0, 2, 1, 3).flatten(1, 2)[:, 3:6]", "cuts through an axis"),
    Refusal("x.flatten(1, 2)[:, 3]", "one index of an axis"),
    Refusal("x.flatten(1, 2).unbind(1)", "one index of an axis"),
    Refusal("x.roll(3)", "roll of the flattened"),
    Refusal("x.flatten(1, 2).roll(1, 1)", "an axis of positions and channels moves"),
    Refusal("x.flatten(1, 2).flip(1)", "an axis of positions and channels moves"),
    Refusal("x.flatten(1, 2)[:, self.one]", "positions and channels", INDICES),
    Refusal("x[:, :, self.one, self.two]", "one constant index", INDICES),
    Refusal("x[:, self.one, :, self.two]", "one constant index", INDICES),
    Refusal("x[:, :, (x[0, 0, 0] > 0).long()]", "one constant index", INDICES),
    Refusal("self.table[(x[:, 0] > 0).long()]", "one constant index", {"table": torch.rand(7, 3)}),
    Refusal("x.index_select(2, (x[0, 0, :, 0] > 0).long())", "computed from the image"),
)
