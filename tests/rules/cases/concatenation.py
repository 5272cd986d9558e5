"""Concatenation: the operator itself, given the number of each cell; constants are `PADDED`.

Along channels the pieces are averaged by their share (contract, point 7).
"""

import torch

from tests.rules.cases.case import Refusal, RuleCase, values
from tests.rules.cases.expected_labels import PADDED, averages, moves, spread

ATEN = "torch.ops.aten."


def filled(*shape: int) -> torch.Tensor:
    return torch.full(shape, PADDED)


POSITIONS = {
    "torch.cat([x, x.flip(2)], 2)": "aten.cat",
    "torch.cat([x[:, :, 1:], x[:, :, :1], x], -2)": "aten.cat",
    "torch.cat([x, x[..., ::2]], 3)": "aten.cat",
    "torch.cat([x, x.flip(3)], 0)": "aten.cat",
    "torch.cat([x[1:], x[:1]])": "aten.cat",
    "torch.cat([x.flatten(2).mT, x.flatten(2).mT.flip(1)[:, 4:]], 1)": "aten.cat",
    "torch.cat([x.permute(0, 2, 3, 1), x.mT.permute(0, 3, 2, 1)], 1)": "aten.cat",
    "torch.cat([x.permute(0, 2, 3, 1).flatten(0, 1), x.permute(0, 2, 3, 1)"
    ".flatten(0, 1)], 1)": "aten.cat",
    "torch.cat([x.mT, x[:, :, :1].mT], 3)": "aten.cat",
    "torch.cat([x[:, :, 2:3], x], 2)": "aten.cat",
    f"{ATEN}concat([x.flip(2), x], 2)": "aten.concat",
    f"{ATEN}concatenate([x.flip(2), x], 2)": "aten.concatenate",
    "torch.stack([x, x.flip(2)], 2)": "aten.stack",
    "torch.stack([x, x.flip(2), x], -1)": "aten.stack",
    "torch.stack([x, x.flip(2)])": "aten.stack",
    "torch.stack([x, x.flip(2)], 1).flatten(0, 1)": "aten.stack",
    "torch.stack([x.flatten(2).mT, x.flatten(2).mT.flip(1)], 2)": "aten.stack",
    "torch.stack([x, x], 2)": "aten.stack",
    "torch.stack([x[:, 0], x[:, 1]], 1)": "aten.stack",
    "torch.stack([x[:, 0], x[:, 1]], 2)": "aten.stack",
    "torch.stack([x[:, 0], x[:, 1].flip(2)], 2)": "aten.stack",
    "torch.stack([x.unsqueeze(2)], 2)": "aten.stack",
}
WITH_CONSTANTS = {
    "torch.cat([self.c, x], 2)": ("aten.cat", (2, 3, 1, 7)),
    "torch.cat([x, self.c.expand(x.shape[0], -1, -1, -1)], 3)": ("aten.cat", (1, 3, 5, 2)),
    "torch.cat([x.mT, self.c.expand(x.shape[0], -1, -1, -1)], -1)": ("aten.cat", (1, 3, 7, 2)),
    "torch.cat([self.c.expand(x.shape[0], -1, -1), x.flatten(2).mT], 1)": ("aten.cat", (1, 2, 3)),
    "torch.cat([self.c.expand(x.shape[0], -1, -1), x.flatten(2).mT, "
    "self.c.expand(x.shape[0], -1, -1), x.flatten(2).mT.flip(1)], 1)": ("aten.cat", (1, 2, 3)),
    f"{ATEN}concat([self.c, x], 2)": ("aten.concat", (2, 3, 1, 7)),
    f"{ATEN}concatenate([x, self.c], -1)": ("aten.concatenate", (2, 3, 5, 1)),
    "torch.stack([x, self.c.expand_as(x), x.flip(2)], 4)": ("aten.stack", (3, 5, 7)),
    "torch.stack([self.c.expand_as(x), x], 2)": ("aten.stack", (3, 5, 7)),
}
CHANNELS = (
    RuleCase(
        "aten.cat",
        "torch.cat([x, x.flip(2)], 1)",
        averages("x[:, :1].expand(-1, 6, -1, -1)", "x[:, :1].flip(2)"),
    ),
    RuleCase(
        "aten.cat",
        "torch.cat([x, x[:, 1:].flip(2)], -3)",
        averages("x[:, :1].expand(-1, 5, -1, -1)", "x[:, :1].flip(2)", shares=(3, 2)),
    ),
    RuleCase(
        "aten.cat",
        "torch.cat([x, x.flip(3), x[:, :1].flip(2)], 1)",
        averages(
            "x[:, :1].expand(-1, 7, -1, -1)",
            "x[:, :1].flip(3)",
            "x[:, :1].flip(2)",
            shares=(3, 3, 1),
        ),
    ),
    RuleCase("aten.cat", "torch.cat([x, x], 1)", moves),
    RuleCase(
        "aten.cat",
        "torch.cat([x, self.c], 1)",
        averages("x[:, :1].expand(-1, 13, -1, -1)"),
        {"c": values(2, 10, 5, 7)},
    ),
    RuleCase(
        "aten.cat",
        "torch.cat([x.flatten(2).mT, x.flatten(2).flip(2).mT], -1)",
        averages(
            "x.repeat(1, 2, 1, 1).flatten(2).mT", "x.repeat(1, 2, 1, 1).flatten(2).flip(2).mT"
        ),
    ),
    RuleCase(
        "aten.cat",
        "torch.cat([x, x[:, :, 2].unsqueeze(2).expand(-1, -1, 5, -1)], 1)",
        averages("x.repeat(1, 2, 1, 1)", "x[:, :1, 2:3]"),
    ),
    RuleCase(
        "aten.concat",
        f"{ATEN}concat([x, x.flip(3)], 1)",
        averages("x.repeat(1, 2, 1, 1)", "x[:, :1].flip(3)"),
    ),
    RuleCase(
        "aten.concatenate",
        f"{ATEN}concatenate([x, x.flip(3)], 1)",
        averages("x.repeat(1, 2, 1, 1)", "x[:, :1].flip(3)"),
    ),
    RuleCase(
        "aten.cat",
        "torch.cat([x, x.flip(1)], -1)",
        averages("x.repeat(1, 1, 1, 2)", "x[..., :1].flip(1)"),
        shape=(2, 5, 7, 3),
        channel_dim=3,
    ),
)

CASES = (
    *(RuleCase(name, code, moves) for code, name in POSITIONS.items()),
    *(
        RuleCase(name, code, moves, {"c": filled(*shape)})
        for code, (name, shape) in WITH_CONSTANTS.items()
    ),
    *CHANNELS,
    RuleCase("aten.stack", "torch.stack([x, x.flip(2)], 2).flatten(1, 2)", spread(moves, 1)),
    # Without channels elsewhere the new axis is theirs, and a constant among them carries nothing.
    RuleCase(
        "aten.stack",
        "torch.stack([x[:, 1], self.c.expand_as(x[:, 1]), x[:, 0]], 1)",
        averages("x"),
        {"c": values(5, 7)},
    ),
)

MIXED = {
    # positions and channels of one axis, as the anchors of a detector's levels
    "torch.cat([x.flatten(1, 2), x[:, 1]], 1)": {},
    "torch.cat([x.flatten(1), x[:, :, ::2].permute(0, 2, 3, 1).flatten(1)], 1)": {},
    "torch.cat([x.flatten(1), self.c, x[:, 0, 0]], 1)": {"c": filled(2, 4)},
    "torch.cat([x.permute(0, 2, 3, 1).flatten(2), x[:, 0]], 2)": {},
}
CASES += tuple(RuleCase("aten.cat", code, moves, parts) for code, parts in MIXED.items())

REFUSED = (Refusal("torch.cat([x, self.c], 0)", "belongs to no image", {"c": values(1, 3, 5, 7)}),)
