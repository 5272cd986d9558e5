"""Padding: the operator itself, given the number of each cell; constants are `PADDED`."""

from tests.rules.cases.case import Refusal, RuleCase
from tests.rules.cases.expected_labels import averages, moves

ATEN = "torch.ops.aten."

PADS = {
    "F.pad(x, (1, 2), value=-1.0)": "aten.pad",
    "F.pad(x, (0, 0, 2, 1), value=-1.0)": "aten.pad",
    "F.pad(x, (1, 0, 0, 3), value=-1.0)": "aten.pad",
    "F.pad(x, (-1, 2, 3, -2), value=-1.0)": "aten.pad",
    "F.pad(x, (-2, -1))": "aten.pad",
    "F.pad(x, (0, 0, 0, 0, 1, 2), value=-1.0)[:, 1:4]": "aten.pad",
    "F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 0, 0, 2), value=-1.0)": "aten.pad",
    "F.pad(x.mT, (1, 0, 0, 2), value=-1.0)": "aten.pad",
    "F.pad(x.flatten(2).mT, (0, 0, 1, 0), value=-1.0)": "aten.pad",
    "F.pad(x.permute(0, 2, 3, 1).flatten(0, 1), (0, 0, 1, 1), value=-1.0)"
    ".unflatten(0, (-1, 5))": "aten.pad",
    f"{ATEN}constant_pad_nd(x, [2, -1, -2, 1], -1.0)": "aten.constant_pad_nd",
    f"{ATEN}constant_pad_nd(x.mT, [0, 3], -1.0)": "aten.constant_pad_nd",
    "F.pad(x, (1, 2, 0, 0), mode='reflect')": "aten.pad",
    "F.pad(x, (3, 6, 4, 1), mode='reflect')": "aten.pad",
    "F.pad(x, (-1, 2, 1, -2), mode='reflect')": "aten.pad",
    "F.pad(x.mT, (1, 2, 3, 0), mode='reflect')": "aten.pad",
    "F.pad(x.flatten(2), (7, 3), mode='reflect')": "aten.pad",
    "F.pad(x.permute(0, 2, 3, 1), (1, 1, 2, 0), mode='reflect')": "aten.pad",
    "F.pad(x, (9, 2, 0, 0), mode='replicate')": "aten.pad",
    "F.pad(x, (3, 0, 1, 8), mode='replicate')": "aten.pad",
    "F.pad(x, (-3, 2, 1, -1), mode='replicate')": "aten.pad",
    "F.pad(x.permute(0, 3, 1, 2), (1, 1, 2, 0), mode='replicate')": "aten.pad",
    "F.pad(x, (2, 1, 0, 0), mode='circular')": "aten.pad",
    "F.pad(x, (3, 0, 1, 5), mode='circular')": "aten.pad",
    "F.pad(x, (-2, 3, 0, 0), mode='circular')": "aten.pad",
    "F.pad(x, (2, -1, -1, 0), mode='circular')": "aten.pad",
    "F.pad(x.flatten(2), (7, 3), mode='circular')": "aten.pad",
    f"{ATEN}reflection_pad1d(x.flatten(2), [3, 30])": "aten.reflection_pad1d",
    f"{ATEN}reflection_pad1d(x.flatten(2), [-3, 2])": "aten.reflection_pad1d",
    f"{ATEN}reflection_pad2d(x, [2, 3, 4, 1])": "aten.reflection_pad2d",
    f"{ATEN}reflection_pad2d(x.mT, [-2, 3, 0, -1])": "aten.reflection_pad2d",
    f"{ATEN}reflection_pad2d(x[1], [2, 3, 4, 1])": "aten.reflection_pad2d",
    f"{ATEN}replication_pad1d(x.flatten(2), [3, 1])": "aten.replication_pad1d",
    f"{ATEN}replication_pad1d(x[:, 0], [3, 1])": "aten.replication_pad1d",
    f"{ATEN}replication_pad2d(x, [8, 3, 0, 1])": "aten.replication_pad2d",
    f"{ATEN}replication_pad2d(x.mT, [-2, 3, 1, -1])": "aten.replication_pad2d",
}
PADS_3D = {
    "F.pad(x, (1, 0, 0, 2, 1, 1), value=-1.0)": "aten.pad",
    "F.pad(x, (1, 0, 0, 2, 1, 1), mode='circular')": "aten.pad",
    f"{ATEN}reflection_pad3d(x, [4, 1, 1, 2, 1, 0])": "aten.reflection_pad3d",
    f"{ATEN}reflection_pad3d(x, [-1, 1, 1, -1, 0, 1])": "aten.reflection_pad3d",
    f"{ATEN}replication_pad3d(x, [4, 1, 1, 2, 7, 0])": "aten.replication_pad3d",
    f"{ATEN}replication_pad3d(x.mT, [-1, 1, 1, -1, 0, 2])": "aten.replication_pad3d",
}

CASES = (
    *(RuleCase(name, code, moves) for code, name in PADS.items()),
    *(RuleCase(name, code, moves, shape=(2, 1, 2, 3, 5)) for code, name in PADS_3D.items()),
    RuleCase("aten.pad", "F.pad(x, (0, 0, 0, 0, 0, 0, 0, -1))", moves),  # fewer samples
    RuleCase(
        "aten.pad", "F.pad(x, (0, 0, 0, 0, 1, 2))", averages("x[:, :1].expand(-1, 6, -1, -1)")
    ),
)

REFUSED = (
    Refusal("F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))", "belongs to no image"),
    Refusal("F.pad(x.flatten(1, 2), (0, 0, 1, 0))", "padding of an axis of positions and channels"),
)
