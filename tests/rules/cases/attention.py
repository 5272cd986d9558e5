"""Fused attention: the probabilities written out, held fast, and mixed with the values."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.rules.cases.case import RuleCase, values
from tests.rules.cases.expected_labels import by_contract, mixes, no_label

HEADS = "x.unflatten(2, (3, 2)).transpose(1, 2)"
QUERY = f"({HEADS} * self.query)"
JOINED = ".transpose(1, 2).flatten(2)"
NAN = "torch.nan_to_num({}, nan=1 / 7)"
SEEN = (values(7, 7, seed=2) > 0).fill_diagonal_(True)
LOST = SEEN.index_fill(0, torch.tensor([1, 4]), False)
HIDDEN = values(7, 7).masked_fill(~SEEN, -torch.inf)


def attention(
    arguments: str,
    probabilities: str,
    *,
    query: str = QUERY,
    key: str = HEADS,
    value: str = HEADS,
    after: str = "",
    channel_dim: int | tuple[int, ...] = (1, 3),
    shape: tuple[int, ...] = (2, 7, 6),
    **parts: Tensor,
) -> RuleCase:
    """Fused attention with ``arguments`` after q, k and v.

    ``probabilities`` are written out, with ``{}`` for the scores ``q @ k.mT``.
    """
    call = f"F.scaled_dot_product_attention({query}, {key}, {value}{arguments}){after}"
    written_out = probabilities.format(f"({query} @ {key}.mT)")
    held = f"(({written_out}).detach() @ {value}){after}"
    if "self.query" in query:
        parts = {"query": values(2), **parts}
    return RuleCase(
        "aten.scaled_dot_product_attention",
        call,
        mixes(held, channel_dim),
        parts,
        shape,
        len(shape) - 1,
    )


PLAIN = "({} / 2**0.5).softmax(-1)"
SETTINGS = (
    attention("", PLAIN),
    attention("", PLAIN, after=JOINED, channel_dim=2),
    attention(", dropout_p=0.3", PLAIN),
    attention(", scale=0.37", "({} * 0.37).softmax(-1)"),
    attention(
        ", is_causal=True",
        "({} / 2**0.5 + torch.full((7, 7), -torch.inf).triu(1)).softmax(-1)",
    ),
    *(
        attention(", self.additive", "({} / 2**0.5 + self.additive).softmax(-1)", additive=mask)
        for mask in (values(7, 7), values(1, 1, 7, 7), values(3, 7, 7), values(1, 3, 1, 7))
    ),
    attention(", self.hidden", "({} / 2**0.5 + self.hidden).softmax(-1)", hidden=HIDDEN),
    *(
        attention(
            f", attn_mask=self.seen{text}",
            f"({{}} {scaled}).masked_fill(~self.seen, -torch.inf).softmax(-1)",
            seen=seen,
        )
        for seen in (SEEN, SEEN[None, None], (values(3, 7, 7) > 0) | torch.eye(7).bool())
        for text, scaled in (("", "/ 2**0.5"), (", scale=2.0", "* 2"))
    ),
    # Rows that see nothing mix equally.
    attention(
        ", self.lost",
        NAN.format("({} / 2**0.5).masked_fill(~self.lost, -torch.inf).softmax(-1)"),
        lost=LOST,
    ),
    attention(
        ", self.lost",
        NAN.format("({} / 2**0.5 + self.lost).softmax(-1)"),
        lost=torch.zeros(1, 7, 7).masked_fill(~LOST, -torch.inf),
    ),
    # A mask from the image.
    attention(
        ", attn_mask=(x @ x.mT).unsqueeze(1)",
        "({} / 2**0.5 + (x @ x.mT).unsqueeze(1)).softmax(-1)",
    ),
)
GROUPED = "x[..., :6].unflatten(2, (3, 2)).transpose(1, 2)"
REPEATED = f"{GROUPED}.repeat_interleave(2, 1)"
MANY = "x.unflatten(2, (6, 2)).transpose(1, 2)"
POOLED = "F.adaptive_avg_pool1d(x.mT, 3).mT"
POOLED_HEADS = f"{POOLED}.unflatten(2, (3, 2)).transpose(1, 2)"
ALL = "x.flatten(1, 2)"
ROWS = "x.mean(2, keepdim=True).expand_as(x).flatten(1, 2)"
COLUMNS = "x.mean(1, keepdim=True).expand_as(x).flatten(1, 2)"
LEARNED = "self.learned.expand(x.shape[0], -1, -1)"
WINDOWS = "x.unflatten(2, (2, 3)).transpose(1, 2)"
OPERANDS = (
    # Without heads; with a channel of values more; on one axis of a map; in windows.
    attention("", "({} / 6**0.5).softmax(-1)", query="x", key="x", value="x", channel_dim=2),
    attention(
        "",
        "({} / 6**0.5).softmax(-1)",
        query="x",
        key="x",
        value="torch.cat((x, x), 2)",
        channel_dim=2,
    ),
    attention(
        "",
        "({} / 3**0.5).softmax(-1)",
        query="x",
        key="x",
        value="x",
        channel_dim=3,
        shape=(2, 5, 7, 3),
    ),
    attention(
        "",
        "({} / 3**0.5).softmax(-1)",
        query="x.flatten(1, 2)",
        key="x.flatten(1, 2)",
        value="x.flatten(1, 2)",
        channel_dim=2,
        shape=(2, 2, 5, 3),
    ),
    attention(
        "",
        "({} / 3**0.5).softmax(-1)",
        query=f"{WINDOWS}.flatten(0, 1).flatten(1, 2)",
        key=f"{WINDOWS}.flatten(0, 1).flatten(1, 2)",
        value=f"{WINDOWS}.flatten(0, 1).flatten(1, 2)",
        channel_dim=2,
        shape=(2, 5, 6, 3),
    ),
    attention(
        "",
        "({} / 3**0.5).softmax(-1)",
        query=f"{WINDOWS}.flatten(2, 3)",
        key=f"{WINDOWS}.flatten(2, 3)",
        value=f"{WINDOWS}.flatten(2, 3)",
        channel_dim=3,
        shape=(2, 5, 6, 3),
    ),
    attention(
        "",
        "({} / 2**0.5).softmax(-1)",
        query="x.unflatten(3, (3, 2)).transpose(2, 3)",
        key="x.unflatten(3, (3, 2)).transpose(2, 3)",
        value="x.unflatten(3, (3, 2)).transpose(2, 3)",
        channel_dim=(2, 4),
        shape=(2, 5, 7, 6),
    ),
    attention(
        "",
        "({} / 3**0.5).softmax(-1)",
        query="x.flatten(0, 1)",
        key="x.flatten(0, 1)",
        value="x.flatten(0, 1)",
        after=".unflatten(0, (-1, 7))",
        channel_dim=2,
        shape=(2, 7, 3),
    ),
    # Keys and values that are fewer than queries; learned queries; learned queries and keys.
    attention("", "({} / 6**0.5).softmax(-1)", query="x", key=POOLED, value=POOLED, channel_dim=2),
    attention("", PLAIN, key=POOLED_HEADS, value=POOLED_HEADS),
    attention(
        ", is_causal=True",
        "({} / 2**0.5 + torch.full((7, 3), -torch.inf).triu(1)).softmax(-1)",
        key=POOLED_HEADS,
        value=POOLED_HEADS,
    ),
    attention(
        "",
        "({} / 6**0.5).softmax(-1)",
        query=LEARNED,
        key="x",
        value="x",
        channel_dim=2,
        learned=values(1, 11, 6),
    ),
    attention(
        "",
        "({} / 6**0.5).softmax(-1)",
        query=LEARNED,
        key="x",
        value="x",
        channel_dim=2,
        learned=values(1, 1, 6),
    ),
    attention(
        "",
        "({} / 6**0.5).softmax(-1)",
        query=LEARNED,
        key="self.keys",
        value="x",
        channel_dim=2,
        learned=values(1, 11, 6),
        keys=values(1, 7, 6),
    ),
    attention(
        "",
        "({} / 6**0.5).softmax(-1)",
        query="self.learned",
        key="x",
        value="x",
        channel_dim=2,
        learned=values(1, 11, 6),
    ),
    # Positions of one label repeated, among keys and values, among queries, and among all.
    *(
        attention(
            "",
            "({} / 3**0.5).softmax(-1)",
            query=query,
            key=key,
            value=key,
            channel_dim=2,
            shape=(2, 5, 7, 3),
        )
        for query, key in ((ALL, COLUMNS), (COLUMNS, ALL), (COLUMNS, COLUMNS), (ALL, ROWS))
    ),
    # Channels first, turned.
    RuleCase(
        "aten.scaled_dot_product_attention",
        "F.scaled_dot_product_attention(x.flatten(2).mT, x.flatten(2).mT, x.flatten(2).mT).mT",
        mixes(
            "((x.flatten(2).mT @ x.flatten(2) / 3**0.5).softmax(-1).detach() @ x.flatten(2).mT).mT"
        ),
        shape=(2, 3, 2, 5),
    ),
    # Attention among channels: labels stay.
    *(
        RuleCase(
            "aten.scaled_dot_product_attention",
            f"F.scaled_dot_product_attention({q}, {q}, {q}){after}",
            by_contract,
            shape=(2, 6, 11),
        )
        for q, after in (("x", ""), ("x.unflatten(1, (3, 2))", ".flatten(1, 2)"))
    ),
    # Fewer heads of keys and values than of queries.
    RuleCase(
        "aten.scaled_dot_product_attention",
        f"F.scaled_dot_product_attention({MANY}, {GROUPED}, {GROUPED}, enable_gqa=True)",
        mixes(f"({MANY} @ {REPEATED}.mT / 2**0.5).softmax(-1).detach() @ {REPEATED}", (1, 3)),
        shape=(2, 7, 12),
        channel_dim=2,
    ),
    RuleCase(
        "aten.scaled_dot_product_attention",
        f"F.scaled_dot_product_attention({MANY}, {GROUPED}, {GROUPED}, self.mask, enable_gqa=True)",
        mixes(
            f"({MANY} @ {REPEATED}.mT / 2**0.5 + self.mask).softmax(-1).detach() @ {REPEATED}",
            (1, 3),
        ),
        {"mask": values(6, 7, 7)},
        (2, 7, 12),
        2,
    ),
    # Values that do not come from the image.
    RuleCase(
        "aten.scaled_dot_product_attention",
        "F.scaled_dot_product_attention(x, x, self.value.expand(x.shape[0], -1, -1))",
        no_label,
        {"value": values(1, 7, 5)},
        (2, 7, 6),
        2,
    ),
)
CASES = (*SETTINGS, *OPERANDS)
