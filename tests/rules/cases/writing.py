"""Writes to a part of a tensor: the operator itself on cells, and sums element by element."""

import torch
from torch import Tensor

from tests.helpers.code_module import from_expression
from tests.rules.cases.case import RuleCase, Truth
from tests.rules.cases.expected_labels import PADDED, moved_by, moves, no_label, spread
from tests.rules.cases.indexing_by_tensors import BY_CHANNEL, SCORES, TOKENS

ROWS = torch.tensor([3, 0])
PLACES = torch.tensor([[30, 2, 5, 8], [0, 1, 34, 7]])
FULL = PLACES[..., None].expand(-1, -1, 3)
OTHER = f"{TOKENS}.flip(1)[:, :4]"
AGAIN = (PLACES % 5)[..., None].expand(-1, -1, 3)
SLICES = torch.tensor([33, 0, 5, 0])
CONSTANT = torch.full((2, 4, 3), PADDED)


def with_parts(
    operator: str, code: str, truth: Truth = moves, *, recorded: bool = False, **parts: Tensor
) -> RuleCase:
    return RuleCase(operator, code, truth, parts, recorded=recorded)


def sums(
    add: str,
    base: str = TOKENS,
    source: str = OTHER,
    index: Tensor = FULL,
    includes: bool = True,
) -> Truth:
    """Each element has the mean of what lands on it, found one element after the other.

    ``add`` picks from the numbers of the base's elements those that the source is added to.
    """

    def truth(case: RuleCase) -> list[Tensor | None]:
        (own,) = moves_of(base, case)
        (other,) = moves_of(source, case)
        shape = own.shape[:-1]
        numbers = torch.arange(own[..., 0].numel()).view(shape)
        places = from_expression(add, index=index)(numbers)
        assert isinstance(places, Tensor)
        rows, added = own.flatten(0, -2), other[tuple(map(slice, places.shape))].flatten(0, -2)
        found = torch.zeros_like(rows)
        landed = [[] for _ in rows]
        for place, row in zip(places.flatten().tolist(), added, strict=True):
            landed[place].append(row)
        for place, new in enumerate(landed):
            was = (
                [rows[place]]
                if (includes or not new) and not torch.isnan(rows[place]).any()
                else []
            )
            all_of = [*was, *new]
            image = place // (len(rows) // case.shape[0])
            found[place] = torch.stack(all_of).mean(0) if all_of else case.prior(image)
        return [found.view(own.shape).mean(2, keepdim=True).expand_as(own)]

    return truth


def moves_of(code: str, case: RuleCase) -> list[Tensor]:
    """The labels of moving code; not a number where it gives a constant."""
    numbers = case.numbers().expand(case.shape).contiguous()
    found = from_expression(code, **case.parts)(numbers)
    assert isinstance(found, Tensor)
    rows = torch.eye(case.sources(), dtype=torch.float64)[found.clamp(min=0).long()]
    rows[found == PADDED] = torch.nan
    return [rows]


CANVAS = f"torch.full_like({TOKENS}, -1.0)"
GATHER = "x.gather(1, self.index)"
CASES = (
    with_parts("aten.slice_scatter", "x.slice_scatter(x.flip(3)[:, :, :2], 2, 1, 5, 2)"),
    with_parts(
        "aten.slice_scatter", "x.slice_scatter(self.c, 2, 1, 3)", c=torch.full((2, 3, 2, 7), PADDED)
    ),
    with_parts("aten.select_scatter", "x.select_scatter(x[:, :, :, 0].flip(2), 3, -2)"),
    with_parts("aten.index_copy", "x.index_copy(2, self.i, x[:, :, 1:3].flip(3))", i=ROWS),
    with_parts(
        "aten.index_copy",
        f"{CANVAS}.index_copy(1, self.i, {TOKENS}[:, 5:9])",
        i=torch.tensor([0, 8, 3, 34]),
    ),
    with_parts(
        "aten.index_copy",
        "x.index_copy(1, self.i, x[:, 1:].flip(3))",
        spread(moves, 1),
        i=torch.tensor([2, 0]),
    ),
    with_parts("aten.index_fill", "x.index_fill(3, self.i, -1.0)", i=ROWS),
    with_parts(
        "aten.index_put",
        f"{TOKENS}.index_put([self.i, self.j], {TOKENS}.flip(1)[0, :4])",
        i=torch.tensor([0, 1, 1, 0]),
        j=torch.tensor([4, 0, 3, 34]),
    ),
    with_parts(
        "aten.index_put",
        f"{TOKENS}.index_put([self.i, self.j], {TOKENS}.flip(1)[0, :1])",
        i=torch.tensor([0, 1, 1, 0]),
        j=torch.tensor([4, 0, 3, 34]),
    ),
    with_parts(
        "aten.index_put",
        f"{TOKENS}.index_put([self.m], self.c)",
        m=torch.arange(70).view(2, 35) % 3 == 0,
        c=torch.full((3,), PADDED),
    ),
    with_parts(
        "aten.index_put",
        f"{CANVAS}.index_put([self.m], {TOKENS}.flip(1)[self.m])",
        recorded=True,
        m=torch.arange(70).view(2, 35) % 3 == 0,
    ),
    with_parts("aten.scatter.src", f"{TOKENS}.scatter(1, self.index, {OTHER})", index=FULL),
    with_parts(
        "aten.scatter.src",
        f"{TOKENS}.scatter(1, self.index, {OTHER})",
        spread(moves, 2),
        index=BY_CHANNEL,
    ),
    with_parts("aten.scatter.src", f"{CANVAS}.scatter(1, self.index, {OTHER})", index=FULL),
    with_parts(
        "aten.scatter.src", f"{TOKENS}.scatter(1, self.index, self.c)", index=FULL, c=CONSTANT
    ),
    with_parts("aten.scatter.value", f"{TOKENS}.scatter(1, self.index, -1.0)", index=FULL),
    with_parts(
        "aten.masked_scatter",
        f"{TOKENS}.masked_scatter(self.m[..., None], {OTHER})",
        m=torch.arange(70).view(2, 35) % 9 == 0,
    ),
    with_parts(
        "aten.masked_scatter",
        f"{CANVAS}.masked_scatter(self.m[..., None], {OTHER})",
        m=torch.arange(70).view(2, 35) % 9 == 0,
    ),
    with_parts(
        "aten.scatter_add",
        f"{TOKENS}.scatter_add(1, self.index, {OTHER})",
        sums(GATHER),
        index=FULL,
    ),
    with_parts(
        "aten.scatter_add",
        f"{CANVAS}.scatter_add(1, self.index, {OTHER})",
        sums(GATHER, CANVAS),
        index=FULL,
    ),
    with_parts(
        "aten.scatter_add",
        f"{TOKENS}.scatter_add(1, self.index, {OTHER})  # on one place",
        sums(GATHER, index=AGAIN),
        index=AGAIN,
    ),
    with_parts(
        "aten.scatter_add",
        f"{TOKENS}.scatter_add(1, self.index, self.c)",
        index=FULL,
        c=CONSTANT * 0,
    ),
    with_parts(
        "aten.scatter.reduce",
        f"{TOKENS}.scatter(1, self.index, {OTHER}, reduce='multiply')",
        sums(GATHER),
        index=FULL,
    ),
    with_parts(
        "aten.scatter.value_reduce",
        f"{TOKENS}.scatter(1, self.index, 0.0, reduce='add')",
        index=FULL,
    ),
    *(
        RuleCase(
            "aten.scatter_reduce",
            f"{TOKENS}.scatter_reduce(1, self.index, {OTHER}, '{how}', include_self={own})",
            sums(GATHER, index=AGAIN, includes=own),
            {"index": AGAIN},
            approximate=how in ("amax", "amin"),
        )
        for how, own in (
            ("sum", True),
            ("mean", True),
            ("mean", False),
            ("prod", True),
            ("amax", False),
            ("amin", True),
        )
    ),
    with_parts(
        "aten.index_add",
        f"{TOKENS}.index_add(1, self.index, {OTHER})",
        sums("x.index_select(1, self.index)", index=SLICES),
        index=SLICES,
    ),
    with_parts(
        "aten.index_add",
        f"{CANVAS}.index_add(1, self.index, {OTHER})",
        sums("x.index_select(1, self.index)", CANVAS, index=SLICES),
        index=SLICES,
    ),
    with_parts(
        "aten.index_add",
        f"{TOKENS}.index_add(0, self.index, {TOKENS}.flip(1)[self.index])",
        sums(
            "x.index_select(0, self.index)",
            source=f"{TOKENS}.flip(1)[self.index]",
            index=torch.tensor([1, 1]),
        ),
        index=torch.tensor([1, 1]),
    ),
    with_parts(
        "aten.index_put",
        f"{TOKENS}.index_put([self.i, self.j], {TOKENS}.flip(1)[0, :4], accumulate=True)",
        sums(
            "x[self.index[0], self.index[1]]",
            source=f"{TOKENS}.flip(1)[0, :4]",
            index=torch.tensor([[0, 1, 1, 1], [4, 0, 3, 0]]),
        ),
        i=torch.tensor([0, 1, 1, 1]),
        j=torch.tensor([4, 0, 3, 0]),
    ),
    RuleCase(
        "aten.index_reduce",
        f"{TOKENS}.index_reduce(1, self.index, {OTHER}, 'mean', include_self=False)",
        sums("x.index_select(1, self.index)", index=SLICES, includes=False),
        {"index": SLICES},
    ),
    # an index that is computed
    RuleCase(
        "aten.scatter.src",
        f"{TOKENS}.scatter(1, {SCORES}.topk(4, 1)[1][..., None].expand(-1, -1, 3), {OTHER})",
        moved_by(
            f"{TOKENS}.scatter(1, self.index, {OTHER})",
            f"{SCORES}.topk(4, 1)[1][..., None].expand(-1, -1, 3)",
        ),
    ),
    with_parts(
        "aten.scatter.value",
        "torch.zeros_like(x).scatter(1, x.argmax(1, keepdim=True), 1.0)",
        no_label,
    ),
)
