"""Products: a gate is ignored, equals are averaged (contract, point 8).

What a gate is follows from the contract, not from the values, so nothing is confirmed there.
"""

from tests.rules.cases.case import RuleCase, values
from tests.rules.cases.expected_labels import averages, follows, stays

ATEN = "torch.ops.aten."
SMALL = (2, 3, 2, 5)
PARTS = {"c": values(3, 2, 5), "row": values(5), "wide": values(7, 1, 1, 2, 5)}

OPERATORS = {
    "aten.mul": "mul.Tensor",
    "aten.div": "div.Tensor",
    "aten.true_divide": "true_divide.Tensor",
    "aten.atan2": "atan2",
    "aten.remainder": "remainder.Tensor",
    "aten.fmod": "fmod.Tensor",
}
PAIRS = {
    # Two streams with positions of their own each are equals; two gates are equals as well.
    "(x, x.flip(3))": ("x", "x.flip(3)"),
    "(x.sigmoid(), x.flip(3).tanh())": ("x", "x.flip(3)"),
    "(x.relu(), x.flip(2).exp())": ("x", "x.flip(2)"),
    # A gate on either side, through copies, views and constants too.
    "(x, x.flip(3).sigmoid())": ("x",),
    "(x.flip(3).softmax(1), x)": ("x",),
    "(x, (2 * x.flip(3).tanh()).clone())": ("x",),
    "(x, x.flip(3).mT.sigmoid().mT)": ("x",),
    "(x, x.sigmoid().flip(3))": ("x",),
    "(x, x.sigmoid().flip(3).relu())": ("x", "x.flip(3)"),
    # A stream without positions that the other has is a gate, whatever its values.
    "(x, x[:, :, :1])": ("x",),
    "(x[:, :, :, 1:2], x)": ("x",),
    "(x[0], x)": ("x",),
    "(x[0, 0, 1, 2], x)": ("x",),
    "(x.sigmoid(), x[:, :, :1])": ("x",),
    "(x[:, :, :1], x[:, :, :, 1:2])": ("x[:, :, :1]", "x[:, :, :, 1:2]"),
    # One label twice.
    "(x, x.sin())": ("x",),
    "(x, x)": ("x",),
}
SOME_PAIRS = {
    "(x, x.flip(3))": ("x", "x.flip(3)"),
    "(x, x.flip(3).sigmoid())": ("x",),
    "(x.flip(3).softmax(1), x)": ("x",),
    "(x[:, :, :, 1:2], x)": ("x",),
}
CONSTANTS = {
    "(x, self.c)": "x",
    "(self.c, x)": "x",
    "(x[:, :, :, 1], self.row[:2])": "x[:, :, :, 1]",
    "(x, self.row)": "x",
    "(self.wide, x)": "x.expand(7, -1, -1, -1, -1)",
    "(x[:, :1], self.c)": "x[:, :1].expand_as(x)",
    "(x.permute(0, 2, 3, 1), self.row[:3])": "x.permute(0, 2, 3, 1)",
    "(x.flatten(2).mT, self.row[:3])": "x.flatten(2).mT",
    "(x.permute(0, 2, 3, 1).flatten(0, 1), self.row[:3])": "x.permute(0, 2, 3, 1).flatten(0, 1)",
}
NUMBERS = {
    "x * 2.5": "aten.mul",
    "2.5 * x": "aten.mul",
    f"{ATEN}mul.Scalar(x, -2.0)": "aten.mul",
    "x / 3": "aten.div",
    "torch.div(x, 0.3, rounding_mode='floor')": "aten.div",
    f"{ATEN}div.Scalar(x, 3.0)": "aten.div",
    "x % 0.7": "aten.remainder",
    f"{ATEN}remainder.Scalar_Tensor(0.7, x)": "aten.remainder",
    f"{ATEN}fmod.Scalar(x, 0.7)": "aten.fmod",
    f"{ATEN}true_divide.Scalar(x, 3.0)": "aten.true_divide",
}
IN_PLACE = ("mul", "div", "atan2", "remainder", "fmod", "true_divide")
GATED = {
    "F.glu(x, 1)": ("x[:, :2]", (2, 4, 3, 5), 1),
    "F.glu(x, -3)": ("x[:, :2]", (2, 4, 3, 5), 1),
    "F.glu(x)": ("x[..., :2]", (2, 3, 5, 4), 3),
    "F.glu(x, 2)": ("x[:, :, :2]", (2, 3, 4, 5), 1),
    "F.glu(x, -2)": ("x[:, :, :2]", (2, 3, 4, 5), 1),
    "F.glu(x.flatten(2).mT)": ("x[:, :2].flatten(2).mT", (2, 4, 3, 5), 1),
    "F.glu(x.flatten(2).mT, 1)": ("x[:, :, :2].flatten(2).mT", (2, 3, 4, 5), 1),
}

# An inner product of two streams scales what it multiplies: it is a gate, and so is its inverse.
SCORES = (
    "x * torch.einsum('bchw,bc->bhw', x.flip(3), x.mean((2, 3)))[:, None]",
    "x * (0.5 * torch.einsum('bchw,bchw->bhw', x.flip(3), x.flip(2)))[:, None]",
    "(x.flip(3) * x.mean((2, 3), True)).sum(1, keepdim=True) * x",
    "x / (x.flip(3) * x.flip(2)).sum(1, keepdim=True)",
    "x * (x.flip(3) * x.flip(2)).sum(1, keepdim=True).reciprocal().clone()",
    "x * x.flip(3).tanh().rsqrt()",
    "x * x.flip(3).sigmoid().clamp(min=0.1)",
)
# What is left of their channels is features, and so is a sum of one stream's alone.
FEATURES = (
    "x * torch.einsum('bchw,bck->bkhw', x.flip(3), x.mean((2, 3))[:, :, None] * self.square)",
    "x * (x.flip(3) * self.square[0, :, None, None]).sum(1, keepdim=True)",
    "x / (x.flip(3) * x.mean((2, 3), True)).exp()",
)

CASES = (
    *(
        RuleCase(name, f"{ATEN}{operator}{pair}", averages(*streams), {}, SMALL)
        for name, operator in OPERATORS.items()
        for pair, streams in (PAIRS if name == "aten.mul" else SOME_PAIRS).items()
    ),
    *(
        RuleCase(name, f"{ATEN}{operator}{pair}", follows(stream), PARTS, SMALL)
        for name, operator in OPERATORS.items()
        for pair, stream in CONSTANTS.items()
        if name == "aten.mul" or pair in ("(x, self.row)", "(self.c, x)")
    ),
    *(RuleCase(name, code, stays, {}, SMALL) for code, name in NUMBERS.items()),
    *(
        RuleCase(
            f"aten.{n}", f"{ATEN}{n}_(x.clone(), x.flip(3))", averages("x", "x.flip(3)"), {}, SMALL
        )
        for n in IN_PLACE
    ),
    *(
        RuleCase(f"aten.{n}", f"{ATEN}{n}_(x.clone(), self.c)", follows("x"), PARTS, SMALL)
        for n in IN_PLACE
    ),
    *(
        RuleCase("aten.glu", code, averages(kept), {}, shape, dim)
        for code, (kept, shape, dim) in GATED.items()
    ),
    RuleCase("aten.mul", "x * x.sigmoid().flip(2)", averages("x"), {}, (2, 2, 5, 3), 3),
    *(RuleCase("aten.mul", code, averages("x"), {}, SMALL) for code in SCORES),
    *(
        RuleCase("aten.mul", code, averages("x", "x.flip(3)"), {"square": values(3, 3)}, SMALL)
        for code in FEATURES
    ),
)
