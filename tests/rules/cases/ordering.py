"""Values in their order: the indices that torch returns beside them say where they come from."""

from tests.rules.cases.case import RuleCase
from tests.rules.cases.expected_labels import Truth, by_contract, moved_by, no_label
from tests.rules.cases.indexing_by_tensors import TOKENS


def chosen(call: str, dim: int = 1, averaged: int | None = 2, source: str = TOKENS) -> Truth:
    """The values of a call that returns values and indices along `dim`; channels are averaged."""
    return moved_by(f"{source}.gather({dim}, self.index)", f"{source}.{call}[1]", averaged)


ALONG_TOKENS = {
    "topk(5, 1)": "aten.topk",
    "topk(5, 1, largest=False)": "aten.topk",
    "topk(5, -2, sorted=False)": "aten.topk",
    "sort(1)": "aten.sort.default",
    "sort(1, descending=True)": "aten.sort.default",
    "sort(dim=1, stable=True)": "aten.sort.stable",
    "kthvalue(3, 1, keepdim=True)": "aten.kthvalue",
}
CASES = (
    *(RuleCase(name, f"{TOKENS}.{call}[0]", chosen(call)) for call, name in ALONG_TOKENS.items()),
    *(RuleCase(name, f"{TOKENS}.{call}[1]", no_label) for call, name in ALONG_TOKENS.items()),
    RuleCase(
        "aten.kthvalue",
        f"{TOKENS}.kthvalue(3, 1)[0]",
        moved_by(
            f"{TOKENS}.gather(1, self.index)[:, 0]",
            f"{TOKENS}.kthvalue(3, 1, keepdim=True)[1]",
            1,
        ),
    ),
    RuleCase("aten.topk", "x.topk(4, 3)[0]", chosen("topk(4, 3)", 3, 1, "x")),
    RuleCase(
        "aten.msort",
        "x[:, :, 0].mT.msort()",
        moved_by("x[:, :, 0].mT.gather(0, self.index)", "x[:, :, 0].mT.sort(0)[1]", 2),
    ),
    RuleCase("aten.topk", "x.topk(2, 1)[0]", by_contract),
    RuleCase("aten.sort.default", "x.sort(1)[0]", by_contract),
    RuleCase("aten.kthvalue", "x.kthvalue(2, 1, keepdim=True)[0]", by_contract),
)
