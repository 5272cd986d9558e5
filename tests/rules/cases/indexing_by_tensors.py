"""Indices that are tensors, constant or computed from the image: the operator itself on cells."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.helpers.code_module import from_expression
from tests.rules.cases.case import Refusal, RuleCase
from tests.rules.cases.expected_labels import (
    averages,
    by_contract,
    moved_by,
    moves,
    no_label,
    spread,
)
from tests.rules.cases.indexing import LAYOUTS

TOKENS = "x.flatten(2).mT"
"""Tokens (B, 35, 3) of images (B, 3, 5, 7)."""


def computed(
    operator: str, code: str, index: str, *, recorded: bool = False, averaged: int | None = None
) -> RuleCase:
    """Code with `INDEX` in the place of an index that is computed from the image."""
    truth = moved_by(code.replace("INDEX", "self.index"), index, averaged)
    return RuleCase(operator, code.replace("INDEX", f"({index})"), truth, recorded=recorded)


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

PAIRS = {"one": torch.tensor([1, 0, 2, 2]), "two": torch.tensor([3, -2, 0, 3])}
TABLES = {"one": torch.tensor([[4], [0], [2]]), "two": torch.tensor([[6, 1]])}
MASK = torch.arange(2 * 35).view(2, 35) % 3 == 1
SEVERAL = {
    "x[:, :, self.one, self.two]": PAIRS,
    "x[:, self.one, :, self.two]": PAIRS,
    "x[:, :, self.one, self.two]  # tables": TABLES,
    "x.permute(0, 2, 3, 1)[:, self.one, self.two]": PAIRS,
    "x.permute(2, 0, 3, 1)[self.one, :, self.two]": PAIRS,
    f"{TOKENS}[self.one, self.two]  # of images too": {
        "one": torch.tensor([[1], [0], [1]]),
        "two": torch.tensor([[30, 2, 5], [0, 0, 34], [7, 11, 13]]),
    },
    "x.permute(0, 2, 3, 1)[self.one, 1:, self.two].flatten(0, 1)": {
        "one": torch.tensor([1, 0, 1]),
        "two": torch.tensor([6, 2, 5]),
    },
    "x.flatten(1, 2)[:, self.one]": {"one": torch.tensor([3, 11, 1, 0])},
    "x.flatten(1)[:, self.one]": {"one": torch.tensor([3, 101, 1, 0, 44])},
    "x.flatten(1)[:, self.one]  # a mask": {"one": torch.arange(105) % 4 == 2},
    f"{TOKENS}[self.one]": {"one": MASK},
    "x.permute(0, 2, 3, 1)[:, self.one]": {"one": torch.arange(35).view(5, 7) % 4 == 0},
}
BY_ELEMENT = torch.tensor([[3, 0, 3, 1], [4, 4, 2, 0]])
GATHERED = {
    # an index for each token, the same for all channels
    f"{TOKENS}.gather(1, self.index[..., None].expand(-1, -1, 3))": BY_ELEMENT,
    f"{TOKENS}.gather(1, self.index[..., None].repeat(1, 1, 3))": BY_ELEMENT,
    f"torch.take_along_dim({TOKENS}, self.index[..., None], 1)": BY_ELEMENT,
    # fewer tokens and channels than there are
    f"{TOKENS}.gather(1, self.index[..., None].expand(-1, -1, 2))": BY_ELEMENT,
    f"{TOKENS}.gather(1, self.index[:1, :, None].expand(-1, -1, 3))": BY_ELEMENT,
    "x.gather(3, self.index[:, None, :, None].expand(-1, 3, -1, 5))": BY_ELEMENT,
    "x.transpose(1, 3).gather(1, self.index[:, :, None, None].expand(-1, -1, 2, 3))": BY_ELEMENT,
    f"{TOKENS}.gather(0, self.index[None, :, None].expand(1, -1, 3))": torch.tensor(
        [1, 0, 0, 1, 1]
    ),
    "x.gather(1, self.index[:, :, None, None].expand(-1, -1, 5, 7))": torch.tensor(
        [[2, 0], [1, 1]]
    ),
    "x.gather(1, self.index[:, :, None, None].expand(-1, -1, 3, 7))": torch.tensor(
        [[2, 0], [1, 1]]
    ),
}
BY_CHANNEL = torch.tensor([[[3, 0, 7], [1, 30, 2]], [[34, 4, 2], [0, 5, 5]]])
PER_CHANNEL = {
    f"{TOKENS}.gather(1, self.index)": ("aten.gather", BY_CHANNEL),
    f"torch.take_along_dim({TOKENS}, self.index, 1)": ("aten.take_along_dim", BY_CHANNEL),
    f"torch.take_along_dim({TOKENS}, self.index, dim=1)": ("aten.take_along_dim", BY_CHANNEL[:1]),
}
SCORES = f"{TOKENS}.mean(-1)"
COMPUTED = (
    computed(
        "aten.gather",
        f"{TOKENS}.gather(1, INDEX[..., None].expand(-1, -1, 3))",
        f"{SCORES}.topk(11, 1)[1]",
    ),
    computed(
        "aten.gather", f"{TOKENS}.gather(1, INDEX)", f"{TOKENS}.argsort(1)[:, :13]", averaged=2
    ),
    computed(
        "aten.gather",
        f"{TOKENS}.gather(1, INDEX[..., None].expand(-1, -1, 3))",
        f"{SCORES}.sort(1, descending=True)[1][:, 1:8] - 0",
    ),
    computed("aten.index", f"{TOKENS}[torch.arange(2)[:, None], INDEX]", f"{SCORES}.topk(5, 1)[1]"),
    computed("aten.index_select", "x.index_select(2, INDEX)", "x.mean((0, 1, 3)).argsort()[:3]"),
    computed("aten.index", "x[:, :, INDEX]", "x.mean((0, 1, 3)) > -0.05", recorded=True),
    computed("aten.index", f"{TOKENS}[INDEX]", f"{SCORES} > 0.1", recorded=True),
    computed("aten.index", f"{TOKENS}[INDEX]", f"{TOKENS} > 0.1", recorded=True),
    computed("aten.index", f"{TOKENS}[:, INDEX]", f"{SCORES}[0].nonzero()[2:9, 0]", recorded=True),
    computed(
        "aten.masked_select", f"{TOKENS}.masked_select(INDEX)", f"{TOKENS} > 0.1", recorded=True
    ),
    computed(
        "aten.repeat_interleave.self_Tensor",
        "x.repeat_interleave(INDEX, 2)",
        "(x.mean((0, 1, 3)) > -0.05).long() + 1",
        recorded=True,
    ),
)
TABLE_OF_TWO = {"table": torch.arange(14.0).view(2, 7)}
EDGES = {"edges": torch.tensor([-1.0, 0.0, 0.5])}
INDICES_ALONE = {
    "aten.nonzero": "(x > 0).nonzero()",
    "aten.nonzero_numpy": "torch.ops.aten.nonzero_numpy(x > 0)[1]",
    "aten.nonzero_static": "torch.nonzero_static(x > 0, size=4)",
    "aten.argwhere": "torch.argwhere(x > 0)",
    "aten.argsort": "x.argsort(2)",
    "aten.where.default": "torch.where(x > 0)[1]",
    "aten.multinomial": "x[:, 0, 0].exp().multinomial(2)",
    "aten.bincount": "(x > 0).long().flatten().bincount()",
    "aten.repeat_interleave.Tensor": "torch.repeat_interleave((x[0, 0, 0] > 0).long())",
}


def by_contract_of_channels(case: RuleCase) -> list[Tensor | None]:
    """Each number comes of the first channel's value at its place; channels are the last axis."""
    found = from_expression(case.code, **case.parts)(case.images())
    rows = torch.eye(case.sources(), dtype=torch.float64)[case.numbers()[:, 0].long()]
    return [rows[..., None, :].expand(*found.shape, case.sources())]


CASES = (
    *(RuleCase(name, code, moves, {"index": index}) for code, (name, index) in INDEXED.items()),
    *(
        RuleCase("aten.index_select", f"{to}.index_select(1, self.index)", moves, {"index": index})
        for to in LAYOUTS
        for index in (INDEX[-3:-1].clamp_max(2),)
    ),
    *(RuleCase("aten.index", code, moves, parts) for code, parts in SEVERAL.items()),
    *(
        RuleCase(
            "aten.take_along_dim" if "take" in code else "aten.gather", code, moves, {"index": i}
        )
        for code, i in GATHERED.items()
    ),
    *(RuleCase(n, code, spread(moves, 2), {"index": i}) for code, (n, i) in PER_CHANNEL.items()),
    RuleCase(
        "aten.index",
        "x.permute(0, 2, 3, 1).reshape(2, 5, 21)[:, self.one]",
        spread(moves, 2),
        {"one": torch.tensor([3, 3, 1])},
    ),
    *COMPUTED,
    RuleCase(
        "aten.index",
        f"{TOKENS}[self.one].reshape(-1, 3)[1:]",
        moves,
        {"one": MASK},
        recorded=True,
    ),
    RuleCase(
        "aten.index", "self.table[(x[:, 0] > 0).long()]", by_contract_of_channels, TABLE_OF_TWO
    ),
    RuleCase(
        "aten.embedding",
        "F.embedding((x[:, 0] > 0).long(), self.table)",
        by_contract_of_channels,
        TABLE_OF_TWO,
    ),
    RuleCase(
        "aten.index_select",
        "self.table[:, 0].index_select(0, (x[:, 0] > 0).long().flatten()).view(2, 5, 7, 1)",
        by_contract_of_channels,
        TABLE_OF_TWO,
    ),
    RuleCase("aten.one_hot", "F.one_hot((x[:, 0] > 0).long(), 3)", by_contract_of_channels),
    RuleCase("aten.bucketize", "torch.bucketize(x, self.edges)", by_contract, EDGES),
    RuleCase("aten.searchsorted", "torch.searchsorted(self.edges, x)", by_contract, EDGES),
    RuleCase(
        "aten.searchsorted", "torch.searchsorted(x[0, 0, 0].sort()[0], self.edges)", no_label, EDGES
    ),
    *(RuleCase(name, code, no_label, recorded=True) for name, code in INDICES_ALONE.items()),
    RuleCase("aten.index", "self.table[x.argmax(1).clamp_max(1)]", no_label, TABLE_OF_TWO),
    RuleCase(
        "aten.index",
        "x + self.table[x.argmax(1).clamp_max(1), 0][:, None]",
        averages("x"),
        TABLE_OF_TWO,
    ),
)
REFUSED = (
    Refusal(f"{TOKENS}[{SCORES} > 0]", "depends on the values"),
    Refusal("x.masked_select(x > 0)", "depends on the values"),
)
