"""Contractions: the operator's own matrix, its Jacobian; attention with its scores held fast."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.rules.cases.case import Refusal, RuleCase, Truth, values
from tests.rules.cases.expected_labels import (
    alike,
    averages,
    by_contract,
    looped,
    mixes,
    normalized,
)

TOKENS = {"shape": (2, 7, 3), "channel_dim": 2}
MAPS_LAST = {"shape": (2, 5, 7, 3), "channel_dim": 3}
MERGED = "x.view(-1, 2, 2, 3, 2, 3).permute(0, 1, 3, 2, 4, 5).flatten(3)"


def contraction(
    name: str,
    code: str,
    truth: Truth,
    *,
    shape: tuple[int, ...] = (2, 3, 5, 7),
    channel_dim: int = 1,
    approximate: bool = False,
    note: str = "",
    **parts: Tensor,
) -> RuleCase:
    """A case whose tensors are given by name."""
    return RuleCase(f"aten.{name}", code, truth, parts, shape, channel_dim, approximate, note)


def twice(case: RuleCase) -> Tensor:
    """Tokens mixed into virtual positions by ``first``, and those into others by ``second``."""
    first, second = (normalized(case.parts[name].double()) for name in ("first", "second"))
    images, tokens, channels = case.shape
    found = torch.zeros(images, len(second), channels, images, tokens, dtype=torch.float64)
    for image in range(images):
        for position, row in enumerate(second):
            for hidden, share in enumerate(row):
                found[image, position, :, image] += share * first[hidden]
    return found.flatten(-2)


def merged_rows(case: RuleCase) -> Tensor:
    """Contracted with tokens and channels at once: each channel has a matrix; they are averaged."""
    images, tokens, channels = case.shape
    weight = case.parts["weight"].double()
    weight = weight if len(weight) == tokens else weight.transpose(0, 1)
    found = torch.zeros(images, weight.shape[-1], images, tokens, dtype=torch.float64)
    for image in range(images):
        for channel in range(channels):
            found[image, :, image] += normalized(weight[:, channel].T) / channels
    return found.flatten(-2)


LINEAR = (
    contraction(
        "linear",
        "F.linear(x, self.weight, self.bias)",
        alike,
        weight=values(11, 3),
        bias=values(11),
        **MAPS_LAST,
    ),
    contraction("linear", "F.linear(x, self.weight)", alike, weight=values(11, 3), **TOKENS),
    contraction("linear", "F.linear(x, self.weight)", mixes(), weight=values(11, 7)),
    contraction(
        "linear",
        "F.linear(x, self.weight, self.bias)",
        mixes(),
        weight=torch.zeros(11, 7).fill_diagonal_(3.0) + 1e-30 * values(11, 7),
        bias=values(11),
    ),
    contraction(
        "linear",
        "F.linear(x, self.weight)",
        mixes("F.linear(x, torch.ones_like(self.weight))"),
        weight=torch.zeros(11, 7),
        note="all zero",
    ),
    contraction("linear", "F.linear(x.flatten(2), self.weight)", mixes(), weight=values(11, 35)),
    contraction("linear", "F.linear(x.mT, self.weight).mT", mixes(), weight=values(11, 5)),
    contraction(
        "linear",
        "F.linear(x.mT, self.weight).mT",
        mixes(channel_dim=2),
        weight=values(11, 7),
        **TOKENS,
    ),
    contraction(
        "linear",
        "F.linear(x.movedim(1, 3), self.weight)",
        mixes(channel_dim=2),
        weight=values(11, 13),
        shape=(2, 13, 5, 3),
        channel_dim=3,
    ),
    # The rows inside the windows of a map, folded into the batch.
    contraction(
        "linear",
        "F.linear(x.unflatten(3, (2, 3)).movedim(3, 1).flatten(0, 1), self.weight)",
        mixes(),
        weight=values(11, 3),
        shape=(2, 5, 5, 6),
    ),
    # Two linear layers over tokens: the hidden layer has positions of its own.
    *(
        contraction(
            "linear",
            f"F.linear({hidden}, self.second).mT",
            looped(twice),
            first=values(11, 7),
            second=values(size, 11, seed=1),
            **TOKENS,
        )
        for hidden, size in (
            ("F.linear(x.mT, self.first)", 5),
            ("F.gelu(F.linear(x.mT, self.first))", 7),
        )
    ),
    # Merged patches, and a flattened map.
    contraction(
        "linear",
        f"F.linear({MERGED}, self.weight)",
        alike,
        weight=values(5, 12),
        shape=(2, 4, 6, 3),
        channel_dim=3,
    ),
    contraction("linear", "F.linear(x.flatten(1), self.weight)", alike, weight=values(11, 105)),
    contraction(
        "linear", "F.linear(x.movedim(1, 3).flatten(2), self.weight)", alike, weight=values(11, 21)
    ),
    contraction(
        "linear", "F.linear(x.flatten(1, 2).mT, self.weight)", alike, weight=values(11, 15)
    ),
    # No label varies along what is contracted.
    contraction("linear", "F.linear(x.mean((2, 3)), self.weight)", alike, weight=values(11, 3)),
    contraction(
        "linear",
        "F.linear(x.mean(1, keepdim=True).movedim(1, 3), self.weight)",
        alike,
        weight=values(11, 1),
    ),
    # A layer of the last axis, of size one: its positions are its own.
    contraction("linear", "F.linear(x.unsqueeze(-1), self.weight)", alike, weight=values(11, 1)),
)
MATRICES = (
    contraction("matmul", "x @ self.weight", mixes(), weight=values(7, 11)),
    contraction("matmul", "self.weight @ x", mixes(), weight=values(11, 5)),
    contraction("matmul", "self.weight @ x", mixes(), weight=values(3, 11, 5)),
    contraction("matmul", "self.weight @ x", mixes(), weight=values(1, 3, 11, 5)),
    contraction("matmul", "x @ self.weight", alike, weight=values(3, 11), **MAPS_LAST),
    contraction("matmul", "x @ self.weight", alike, weight=values(5, 3, 11), **MAPS_LAST),
    contraction(
        "matmul", "self.weight @ x", mixes(channel_dim=3), weight=values(11, 7), **MAPS_LAST
    ),
    contraction("matmul", "x @ self.weight", mixes(), weight=values(7)),
    contraction(
        "tensordot",
        "torch.tensordot(self.weight, x, ([1], [-1])).movedim(0, -1)",
        mixes(),
        weight=values(11, 7),
    ),
    contraction(
        "tensordot",
        "torch.tensordot(x, self.weight, ([1], [0]))",
        mixes(),
        weight=values(7, 11),
        **TOKENS,
    ),
    contraction(
        "tensordot",
        "torch.tensordot(x, self.weight, 2)",
        looped(merged_rows),
        weight=values(7, 3, 11),
        **TOKENS,
    ),
    contraction(
        "tensordot", "torch.tensordot(x, self.weight, 1)", alike, weight=values(3, 11), **MAPS_LAST
    ),
    # Copies of a stream, one for each of the rows that mix it.
    contraction(
        "einsum",
        "torch.einsum('nm,bnmc->bnc', self.weight, x[:, None].expand(-1, 11, -1, -1))",
        mixes(channel_dim=2),
        weight=values(11, 7),
        **TOKENS,
    ),
    contraction(
        "einsum",
        "torch.einsum('bnm,bnmc->bnc', (x @ x.mT).exp(), x[:, None].expand(-1, 7, -1, -1))",
        mixes("torch.einsum('bnm,bmc->bnc', (x @ x.mT).exp().detach(), x)", channel_dim=2),
        **TOKENS,
    ),
    contraction(
        "matmul",
        "(F.linear(x, self.weight)[:, :, None] @ x[:, None].expand(-1, 7, -1, -1)).squeeze(2)",
        mixes("F.linear(x, self.weight).detach() @ x", channel_dim=2),
        weight=values(7, 3),
        **TOKENS,
    ),
    contraction("matmul", "x @ self.weight", alike, weight=values(3), **MAPS_LAST),
    contraction(
        "matmul", "self.weight @ x", alike, weight=values(3), shape=(2, 5, 3, 7), channel_dim=2
    ),
    contraction(
        "matmul",
        "self.weight @ x",
        mixes(channel_dim=2),
        weight=values(5),
        shape=(2, 7, 5, 3),
        channel_dim=3,
    ),
    contraction("matmul", "x.flatten(1) @ self.weight", alike, weight=values(105, 11)),
    contraction("matmul", "x.flatten(2) @ self.weight", mixes(), weight=values(35, 11)),
    contraction("matmul", "x.flatten(1) @ self.weight", alike, weight=values(105)),
    contraction(
        "mm",
        "torch.mm(self.weight, x)",
        mixes(),
        approximate=True,  # from image to image
        weight=values(11, 5),
        shape=(5, 3),
    ),
    contraction(
        "mm",
        "torch.mm(x.mT, self.weight)",
        mixes(channel_dim=0),
        approximate=True,
        weight=values(5, 11),
        shape=(5, 3),
    ),
    contraction("mm", "torch.mm(x.flatten(1), self.weight)", alike, weight=values(105, 11)),
    contraction(
        "mm",
        "torch.mm(x.movedim(1, 3).flatten(0, 2), self.weight).unflatten(0, (-1, 5, 7))",
        alike,
        weight=values(3, 11),
    ),
    contraction("bmm", "torch.bmm(x, self.weight)", alike, weight=values(2, 3, 11), **TOKENS),
    contraction(
        "bmm", "torch.bmm(self.weight, x)", mixes(channel_dim=2), weight=values(2, 11, 7), **TOKENS
    ),
    contraction(
        "bmm",
        "torch.bmm(x.movedim(1, 0).flatten(2), self.weight)",
        mixes(channel_dim=0),
        weight=values(3, 35, 11),
    ),
    contraction("bmm", "torch.bmm(x.flatten(2), self.weight)", mixes(), weight=values(2, 35, 11)),
    contraction(
        "mv",
        "torch.mv(x.flatten(0, 1), self.weight).unflatten(0, (-1, 7))",
        alike,
        weight=values(3),
        **TOKENS,
    ),
    contraction(
        "mv",
        "torch.mv(x.mT, self.weight)",
        mixes(channel_dim=0),
        approximate=True,
        weight=values(5),
        shape=(5, 3),
    ),
    contraction("mv", "torch.mv(x.flatten(1), self.weight)", alike, weight=values(105)),
    contraction("mv", "torch.mv(self.weight, x.mean((0, 2, 3)))", alike, weight=values(11, 3)),
    contraction("dot", "torch.dot(x.flatten(), self.weight)", alike, weight=values(210)),
    contraction("dot", "torch.dot(self.weight, x.mean((0, 2, 3)))", alike, weight=values(3)),
    contraction(
        "dot",
        "torch.dot(self.weight, x.mean((1, 3)).flatten())",
        mixes(channel_dim=None),
        approximate=True,
        weight=values(10),
    ),
    contraction("dot", "torch.dot(x.flatten(), x.flatten())", alike),
    contraction(
        "addmm",
        "torch.addmm(self.bias, x.flatten(1), self.weight)",
        alike,
        bias=values(11),
        weight=values(105, 11),
    ),
    contraction(
        "addmm",
        "torch.addmm(self.bias, x.flatten(0, 1), self.weight, beta=0.5, alpha=-2)"
        ".unflatten(0, (-1, 7))",
        alike,
        bias=values(1, 11),
        weight=values(3, 11),
        **TOKENS,
    ),
    contraction(
        "addmm",
        "torch.addmm(self.bias, self.weight, x)",
        mixes(),
        approximate=True,
        bias=values(3),
        weight=values(11, 5),
        shape=(5, 3),
    ),
    contraction(
        "baddbmm",
        "torch.baddbmm(self.bias, x, self.weight, alpha=3)",
        alike,
        bias=values(11),
        weight=values(2, 3, 11),
        **TOKENS,
    ),
    contraction(
        "baddbmm",
        "torch.baddbmm(self.bias, self.weight, x)",
        mixes(channel_dim=2),
        bias=values(2, 11, 3),
        weight=values(2, 11, 7),
        **TOKENS,
    ),
    contraction(
        "addbmm",
        "torch.addbmm(self.bias, x.movedim(2, 0), self.weight)",
        looped(merged_rows),
        bias=values(11),
        weight=values(3, 7, 11),
        **TOKENS,
    ),
)
EQUATIONS = (
    # One operand: axes change places, or are summed.
    *(
        contraction("einsum", f"torch.einsum('{equation}', x)", alike)
        for equation in ("bchw->bhwc", "bchw->bwc", "bchw->bc", "bchw->bhw", "...w->...", "cbad")
    ),
    *(
        contraction(
            "einsum", f"torch.einsum('{equation}', x, self.weight)", truth, weight=values(*weight)
        )
        for equation, weight, truth in (
            ("bchw,dc->bdhw", (11, 3), alike),
            ("b c h w, c d -> b h w d", (3, 11), alike),
            ("bchw,c->bhw", (3,), alike),
            ("bchw,c->bchw", (3,), alike),
            ("bchw,hw->bchw", (5, 7), alike),
            ("bchw,d->bchwd", (11,), alike),
            ("bchw,wv->bchv", (7, 11), mixes()),
            ("bchw,hg->bgwc", (5, 11), mixes(channel_dim=3)),
            ("bchw,nhw->bcn", (11, 5, 7), mixes()),
            ("bchw,nhw->bnc", (11, 5, 7), mixes(channel_dim=2)),
            ("bchw,hwij->bcij", (5, 7, 2, 11), mixes()),
            ("bchw,cwv->bchv", (3, 7, 11), mixes()),
            ("bchw,hwv->bchv", (5, 7, 11), mixes()),
            ("bchw,hw->bc", (5, 7), mixes()),
            ("bchw,w->bch", (7,), mixes()),
            ("bchw,cw->bch", (3, 7), mixes()),
            ("...hw,wv->...hv", (7, 11), mixes()),
            ("bc...,cd->bd...", (3, 11), alike),
            ("...w,...w->...", (7,), mixes()),
            ("BCHW,WV->BCHV", (7, 11), mixes()),
            # The result left out: the letters that stand once, in the order of the alphabet.
            ("bchw,wv", (7, 11), mixes()),
            ("zchw,dc", (11, 3), alike),
            ("...w,wa", (7, 11), mixes()),
        )
    ),
    contraction(
        "einsum", "torch.einsum('dc,bchw->bdhw', self.weight, x)", alike, weight=values(11, 3)
    ),
    contraction(
        "einsum",
        "torch.einsum('nm,bmc->bnc', self.weight, x)",
        mixes(channel_dim=2),
        weight=values(11, 7),
        **TOKENS,
    ),
    contraction(
        "einsum",
        "torch.einsum('bi,oi->bo', x.flatten(1), self.weight)",
        alike,
        weight=values(11, 105),
    ),
    contraction(
        "einsum",
        "torch.einsum('bmc,mcn->bn', x, self.weight)",
        looped(merged_rows),
        weight=values(7, 3, 11),
        **TOKENS,
    ),
    contraction(
        "einsum",
        "torch.einsum('bwhd,wde->bwhe', x, self.weight)",
        alike,
        weight=values(5, 3, 11),
        **MAPS_LAST,
    ),
)
NAN = "torch.nan_to_num({}, nan=1 / 7)"
HEADS = "x.unflatten(2, (2, 3)).transpose(1, 2)"
JOINED = ".transpose(1, 2).flatten(2)"
IMAGES = {"shape": (2, 7, 6), "channel_dim": 2}
HIDDEN = values(7, 7).masked_fill(values(7, 7, seed=1) > 0, -torch.inf).fill_diagonal_(0.0)
LOST = HIDDEN.index_fill(0, torch.tensor([2, 5]), -torch.inf)


def attention(
    name: str,
    probabilities: str,
    stand_in: str = "",
    *,
    value: str = HEADS,
    after: str = JOINED,
    channel_dim: int | tuple[int, ...] = 2,
    **parts: Tensor,
) -> RuleCase:
    """``probabilities @ value``; the stand-in, where it is another, holds its weights fast."""
    held = f"(({stand_in or probabilities}).detach() @ {value}){after}"
    code = f"(({probabilities}) @ {value}){after}"
    return contraction(name, code, mixes(held, channel_dim), **IMAGES, **parts)


QUERY = f"({HEADS} * self.query)"
SCORES = f"{QUERY} @ {HEADS}.mT"
Q = {"query": values(3)}
WRITTEN_OUT = (
    attention("matmul", "(x @ x.mT).softmax(-1)", value="x", after=""),
    attention("matmul", "x @ x.mT", value="x", after=""),
    attention("matmul", "(x @ x.mT).softmax(1).mT", value="x", after=""),
    attention("matmul", f"({SCORES}).softmax(-1)", **Q),
    attention("matmul", f"({SCORES}).softmax(-1)", after="", channel_dim=(1, 3), **Q),
    attention("matmul", f"({SCORES} / 3**0.5 + self.bias).softmax(-1)", bias=values(2, 7, 7), **Q),
    attention(
        "matmul",
        f"({SCORES}).masked_fill(self.hidden < 0, -torch.inf).softmax(-1)",
        hidden=HIDDEN,
        **Q,
    ),
    attention("matmul", f"({SCORES} + self.hidden).softmax(-1)", hidden=HIDDEN, **Q),
    attention(
        "matmul",
        f"({SCORES} + self.lost).softmax(-1)",
        NAN.format(f"({SCORES} + self.lost).softmax(-1)"),
        lost=LOST,
        **Q,
    ),
    # Talking heads, before and after the softmax.
    attention(
        "einsum",
        f"torch.einsum('hg,bgqk->bhqk', self.talk, {SCORES}).softmax(-1)",
        talk=values(2, 2),
        **Q,
    ),
    attention(
        "einsum",
        f"torch.einsum('bgqk,gh->bhqk', ({SCORES}).softmax(-1), self.talk)",
        talk=values(2, 2),
        **Q,
    ),
    attention(
        "linear",
        f"F.linear(({SCORES}).softmax(-1).movedim(1, 3), self.talk).movedim(3, 1)",
        talk=values(2, 2),
        **Q,
    ),
    attention("einsum", f"torch.einsum('bhqd,bhkd->bhqk', {QUERY}, {HEADS}).softmax(-1)", **Q),
    # Keys and values are fewer than queries, or come from a constant's queries.
    attention(
        "matmul",
        "(x @ F.adaptive_avg_pool1d(x.mT, 3)).softmax(-1)",
        value="F.adaptive_avg_pool1d(x.mT, 3).mT",
        after="",
    ),
    attention(
        "matmul", "(self.query @ x.mT).softmax(-1)", value="x", after="", query=values(11, 6)
    ),
    attention("matmul", "(self.query @ x.mT).softmax(-1)", value="x", after="", query=values(1, 6)),
    attention("bmm", "torch.bmm(x, x.mT).softmax(-1)", value="x", after=""),
    contraction(
        "bmm",
        "torch.bmm(torch.bmm(x, x.mT).softmax(-1), x)",
        mixes("(x @ x.mT).softmax(-1).detach() @ x", 2),
        **IMAGES,
    ),
    contraction(
        "baddbmm",
        "torch.bmm(torch.baddbmm(self.bias, x, x.mT, alpha=0.4).softmax(-1), x)",
        mixes("(0.4 * x @ x.mT + self.bias).softmax(-1).detach() @ x", 2),
        bias=values(1, 7, 7),
        **IMAGES,
    ),
    contraction(
        "einsum",
        f"torch.einsum('bhqk,bhkd->bqhd', ({SCORES}).softmax(-1), {HEADS}).flatten(2)",
        mixes(f"(({SCORES}).softmax(-1).detach() @ {HEADS}){JOINED}", 2),
        **Q,
        **IMAGES,
    ),
    contraction(
        "einsum",
        f"torch.einsum('bkhd,bhqk->bqhd', x.unflatten(2, (2, 3)), ({SCORES}).softmax(-1))",
        mixes(f"(({SCORES}).softmax(-1).detach() @ {HEADS}).transpose(1, 2)", (2, 3)),
        **Q,
        **IMAGES,
    ),
    # Channels first: values times the transposed map.
    contraction(
        "matmul",
        "x @ (x.mT @ x).softmax(-1).mT",
        mixes("x @ (x.mT @ x).softmax(-1).mT.detach()"),
        shape=(2, 3, 11),
    ),
    contraction(
        "matmul",
        "x.flatten(2) @ (x.flatten(2).mT @ x.flatten(2)).softmax(1)",
        mixes("x.flatten(2) @ (x.flatten(2).mT @ x.flatten(2)).softmax(1).detach()"),
        shape=(2, 3, 2, 5),
    ),
    # Along rows alone, and inside the windows of a map.
    contraction(
        "matmul",
        "(x @ x.mT).softmax(-1) @ x",
        mixes("(x @ x.mT).softmax(-1).detach() @ x", 3),
        **MAPS_LAST,
    ),
    contraction(
        "matmul",
        "(x.flatten(0, 1) @ x.flatten(0, 1).mT).softmax(-1) @ x.flatten(0, 1)",
        mixes("(x.flatten(0, 1) @ x.flatten(0, 1).mT).softmax(-1).detach() @ x.flatten(0, 1)", 2),
        **MAPS_LAST,
    ),
    # Over channels (cross-covariance): labels stay.
    contraction("matmul", "(x @ x.mT).softmax(-1) @ x", by_contract, shape=(2, 3, 11)),
    # Linear attention, and scores that are left at that.
    contraction(
        "matmul",
        "x.exp() @ (x.exp().mT @ x)",
        mixes("(x.exp() @ x.exp().mT).detach() @ x", 2),
        **IMAGES,
    ),
    contraction(
        "matmul",
        "x @ (x.mT @ x)",
        mixes("(x.abs() @ x.abs().mT).detach() @ x", 2),
        approximate=True,
        **IMAGES,
    ),
    contraction(
        "matmul",
        "(x @ x.mT).softmax(-1)",
        averages("x[:, :, :1].expand(-1, -1, 7)", "x[:, :, :1].mT.expand(-1, 7, -1)"),
        **IMAGES,
    ),
    # Content times a gate without positions, and two equals.
    contraction(
        "einsum", "torch.einsum('bmc,bc->bm', x, x.mean(1))", mixes("x.sum(2)", None), **IMAGES
    ),
)
CASES = (*LINEAR, *MATRICES, *EQUATIONS, *WRITTEN_OUT)

REFUSED = (
    Refusal(
        "torch.einsum('bchw,wv,hg->bcgv', x, self.one, self.two)",
        "of 3 operands",
        {"one": values(7, 11), "two": values(5, 13)},
    ),
    Refusal(
        "torch.einsum('bchh,hd->bchd', x[..., :5], self.weight)",
        "takes the diagonal",
        {"weight": values(5, 11)},
    ),
    Refusal("torch.einsum('bchh->bch', x[..., :5])", "takes the diagonal"),
    # A stream beside the product, in one operator.
    Refusal(
        "torch.addmm(x.flatten(1), x.flatten(1), self.weight)",
        "adds a stream from the image to a product",
        {"weight": values(105, 105)},
    ),
    Refusal(
        "torch.baddbmm(x, x, self.weight)",
        "adds a stream from the image to a product",
        {"weight": values(2, 3, 3)},
        (2, 7, 3),
        2,
    ),
)
