"""Sums: the plain average of the streams, whatever their size (contract, point 6)."""

from tests.rules.cases.case import Refusal, RuleCase, values
from tests.rules.cases.expected_labels import averages, each, follows

ATEN = "torch.ops.aten."
SMALL = (2, 3, 2, 5)
PARTS = {"c": values(3, 2, 5), "row": values(5), "wide": values(7, 1, 1, 2, 5)}

SUMS = {
    "x + x.flip(3)": ("aten.add", ("x", "x.flip(3)")),
    "x.flip(3) + x": ("aten.add", ("x", "x.flip(3)")),
    "torch.add(x, x.flip(3), alpha=-2.5)": ("aten.add", ("x", "x.flip(3)")),
    "x - x.flip(2)": ("aten.sub", ("x", "x.flip(2)")),
    "torch.sub(x, x.flip(2), alpha=3)": ("aten.sub", ("x", "x.flip(2)")),
    "torch.rsub(x, x.flip(2))": ("aten.rsub", ("x", "x.flip(2)")),
    "torch.lerp(x, x.flip(3), 0.3)": ("aten.lerp", ("x", "x.flip(3)")),
    "torch.lerp(x, x.flip(3), self.c)": ("aten.lerp", ("x", "x.flip(3)")),
    "torch.addcmul(x, x.flip(3), self.c)": ("aten.addcmul", ("x", "x.flip(3)")),
    "torch.addcmul(x, self.c, x.flip(3), value=-0.5)": ("aten.addcmul", ("x", "x.flip(3)")),
    "torch.addcdiv(x, x.flip(3), self.c)": ("aten.addcdiv", ("x", "x.flip(3)")),
    "torch.addcdiv(x, self.c, x.flip(3), value=2)": ("aten.addcdiv", ("x", "x.flip(3)")),
    "x.clone().add_(x.flip(3))": ("aten.add", ("x", "x.flip(3)")),
    "x.clone().sub_(x.flip(3), alpha=2)": ("aten.sub", ("x", "x.flip(3)")),
    "x.clone().lerp_(x.flip(3), 0.3)": ("aten.lerp", ("x", "x.flip(3)")),
    "x.clone().addcmul_(x.flip(3), self.c)": ("aten.addcmul", ("x", "x.flip(3)")),
    "x.clone().addcdiv_(self.c, x.flip(3))": ("aten.addcdiv", ("x", "x.flip(3)")),
    # Fewer axes or an axis of size one.
    "x + x[:, :, :1]": ("aten.add", ("x", "x[:, :, :1]")),
    "x[:, :, :, 3:4] + x": ("aten.add", ("x", "x[:, :, :, 3:4]")),
    "x[:, :, :1] - x[..., :1]": ("aten.sub", ("x[:, :, :1]", "x[..., :1]")),
    "x + x[1]": ("aten.add", ("x", "x[1:]")),
    "x[0, 0, 1, 2] + x": ("aten.add", ("x", "x[:1, :, 1:2, 2:3]")),
    "x + x[:, :1].flip(3)": ("aten.add", ("x", "x[:, :1].flip(3)")),
    "x + x[0, :, 0, 1:2].unsqueeze(1)": ("aten.add", ("x", "x[:1, :, :1, 1:2]")),
    # In other layouts.
    "x.permute(0, 2, 3, 1) + x.flip(3).permute(0, 2, 3, 1)": (
        "aten.add",
        ("x.permute(0, 2, 3, 1)", "x.flip(3).permute(0, 2, 3, 1)"),
    ),
    "x.flatten(2).mT + x.flip(3).flatten(2).mT": (
        "aten.add",
        ("x.flatten(2).mT", "x.flip(3).flatten(2).mT"),
    ),
    "x.flatten(2).mT + x.mT.flatten(2).mT": ("aten.add", ("x.flatten(2).mT", "x.mT.flatten(2).mT")),
    "x.flatten(2) + x.mT.reshape(-1, 3, 10)": ("aten.add", ("x.flatten(2)", "x.mT.flatten(2)")),
    "x.permute(0, 2, 3, 1).flatten(0, 1) + x.flip(2).permute(0, 2, 3, 1).reshape(-1, 5, 3)": (
        "aten.add",
        ("x.permute(0, 2, 3, 1).flatten(0, 1)", "x.flip(2).permute(0, 2, 3, 1).flatten(0, 1)"),
    ),
    "x.movedim(3, 0) + x.flip(0).movedim(3, 0)": (
        "aten.add",
        ("x.movedim(3, 0)", "x.flip(0).movedim(3, 0)"),
    ),
    # A chain whose sums nobody else reads is one sum.
    "x + x.flip(3) + x.flip(2)": ("aten.add", ("x", "x.flip(3)", "x.flip(2)")),
    "x + (x.flip(3) - x.flip(2))": ("aten.add", ("x", "x.flip(3)", "x.flip(2)")),
    "(x + x.flip(3)) + (x.flip(2) + x.flip(2, 3))": (
        "aten.add",
        ("x", "x.flip(3)", "x.flip(2)", "x.flip(2, 3)"),
    ),
    "x + (self.c + x.flip(3))": ("aten.add", ("x", "x.flip(3)")),
    "torch.addcmul(x + x.flip(2), x.flip(3), self.c)": (
        "aten.addcmul",
        ("x", "x.flip(3)", "x.flip(2)"),
    ),
    "x.clone().add_(x.flip(3)).add_(x.flip(2))": ("aten.add", ("x", "x.flip(3)", "x.flip(2)")),
}
SHARED = {  # a sum that somebody else reads, or that is transformed, counts as one stream
    "(lambda y: (y + x.flip(2), y))(x + x.flip(3))": (
        each(
            averages("x", "x.flip(3)", "x.flip(2)", shares=(1, 1, 2)),
            averages("x", "x.flip(3)"),
        )
    ),
    "(x + x.flip(3)).relu() + x.flip(2)": averages("x", "x.flip(3)", "x.flip(2)", shares=(1, 1, 2)),
}
ONE = {
    "x + 1": ("aten.add", "x"),
    "1.5 - x": ("aten.rsub", "x"),
    f"{ATEN}add.Scalar(x, 2, 3)": ("aten.add", "x"),
    f"{ATEN}sub.Scalar(x, 2)": ("aten.sub", "x"),
    f"{ATEN}rsub.Scalar(x, 2.0)": ("aten.rsub", "x"),
    "x + self.c": ("aten.add", "x"),
    "self.c + x": ("aten.add", "x"),
    "x - self.row": ("aten.sub", "x"),
    "self.row - x": ("aten.sub", "x"),
    "torch.rsub(x, self.c)": ("aten.rsub", "x"),
    "x + self.wide": ("aten.add", "x.expand(7, -1, -1, -1, -1)"),
    "x[:, :1] + self.c": ("aten.add", "x[:, :1].expand_as(x)"),
    "x[:, 0] + self.c[0]": ("aten.add", "x[:, 0]"),
    "x.permute(0, 2, 3, 1) + self.row[:3]": ("aten.add", "x.permute(0, 2, 3, 1)"),
    "x.clone().add_(self.c)": ("aten.add", "x"),
    "x.clone().sub_(1)": ("aten.sub", "x"),
    "x + x": ("aten.add", "x"),
    "x + x.relu()": ("aten.add", "x"),
    "torch.lerp(x, self.c, 0.3)": ("aten.lerp", "x"),
    "torch.lerp(self.c, x, 0.3)": ("aten.lerp", "x"),
    "torch.lerp(x, self.c, self.row)": ("aten.lerp", "x"),
    "torch.lerp(self.c, self.row, x)": ("aten.lerp", "x"),
    "torch.addcmul(x, self.c, self.row)": ("aten.addcmul", "x"),
    "torch.addcmul(self.c, x, self.row)": ("aten.addcmul", "x"),
    "torch.addcmul(self.c, self.row, x)": ("aten.addcmul", "x"),
    "torch.addcdiv(x, self.c, self.row)": ("aten.addcdiv", "x"),
    "torch.addcdiv(self.c, x, self.row)": ("aten.addcdiv", "x"),
}
BY_GATE = {  # the share of each stream, computed from a third: it says how much, not what
    "torch.lerp(x, x.flip(3), x.flip(2).sigmoid())": ("x", "x.flip(3)"),
    "torch.lerp(x, self.c, x.flip(2).sigmoid())": ("x",),
}

CASES = (
    *(RuleCase(name, code, follows(*s), PARTS, SMALL) for code, (name, s) in SUMS.items()),
    *(RuleCase("aten.add", code, truth, {}, SMALL) for code, truth in SHARED.items()),
    *(RuleCase(name, code, follows(s), PARTS, SMALL) for code, (name, s) in ONE.items()),
    *(RuleCase("aten.lerp", code, averages(*s), PARTS, SMALL) for code, s in BY_GATE.items()),
    RuleCase("aten.add", "x + x.roll(1, 1)", follows("x", "x.roll(1, 1)"), {}, (2, 2, 5, 3), 3),
)

REFUSED = (
    Refusal("torch.addcmul(x, x.flip(2), x.flip(3))", "a product of two streams"),
    Refusal("torch.addcdiv(x, x.flip(2), x.flip(3).exp())", "a product of two streams"),
)

UNREACHABLE = {
    "aten.__iadd__": "no operator of ATen: x += y is aten.add_",
    "aten.__isub__": "no operator of ATen: x -= y is aten.sub_",
}
