"""Where the labels of an operator's output come from, found with the operator itself or by loops.

None of this knows labeltrace's layouts, flows or label arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tests.helpers.code_module import Code, from_expression
from tests.rules.cases.case import RuleCase, Truth

PADDED = -1.0
"""Stands in an index tensor for what does not come from the image."""


def moves(case: RuleCase) -> list[Tensor | None]:
    """The operator only moves values, so it moves the numbers of their cells alike.

    Code that pads is to pad with `PADDED`, whose place the prior of that image takes; the image is
    known by the first axis of the output.
    """
    outputs = _tensors(_double(case.code, case)(case.numbers().expand(case.shape).contiguous()))
    return [_looked_up(output, case) for output in outputs]


def moved_by(code: str, index: str, averaged: int | None = None) -> Truth:
    """Code that moves values by `self.index`, where other code gives that index of the images.

    Labels are averaged over the axis `averaged`: the channels, along which the index differs.
    """

    def truth(case: RuleCase) -> list[Tensor | None]:
        found = from_expression(index, **case.parts)(case.images())
        parts = {**case.parts, "index": found}
        base: Truth = moves if averaged is None else spread(moves, averaged)
        return list(base(replace(case, code=code, parts=parts)))

    return truth


def stays(case: RuleCase) -> list[Tensor | None]:
    """Each value depends on its own position alone, as changing one cell at a time confirms."""
    found = by_contract(case)
    _confirm(case, found)
    return found


def follows(*codes: str, shares: Sequence[float] = ()) -> Truth:
    """As `averages`; changing one cell at a time confirms that nothing else has an influence."""
    expected = averages(*codes, shares=shares)

    def truth(case: RuleCase) -> list[Tensor | None]:
        found = list(expected(case))
        _confirm(case, found)
        return found

    return truth


def by_contract(case: RuleCase) -> list[Tensor | None]:
    """Labels stay by the contract's own word: normalization layers (5), gates (8)."""
    with torch.no_grad():
        outputs = _tensors(_double(case.code, case)(case.images().double()))
    return [_looked_up(case.numbers().expand(output.shape), case) for output in outputs]


def no_label(case: RuleCase) -> list[Tensor | None]:
    """The output is mixing weights, or does not come from the image."""
    return [None]


def mixes(code: str = "", channel_dim: int | tuple[int, ...] | None = 1, **parts: Tensor) -> Truth:
    """``Norm(|W|)`` with the operator's own matrix, its Jacobian; one for each output channel.

    Args:
        code: a linear stand-in for code that is not linear, or that pads. Mixing weights that come
            from the image are constants in it: they are detached.
        channel_dim: the axes of the output whose matrices are averaged (contract, point 4).
        **parts: what the stand-in reads beside the case's own.
    """

    def truth(case: RuleCase) -> list[Tensor | None]:
        found: list[Tensor | None] = []
        for jacobian in _jacobians(case, code or case.code, **parts):
            rows = normalized(jacobian)
            if channel_dim is not None:
                rows = rows.mean(channel_dim, keepdim=True).expand_as(rows)
            found.append(rows)
        return found

    return truth


def alike(case: RuleCase) -> list[Tensor | None]:
    """Aggregation: every cell that takes part, as the Jacobian confirms, counts the same."""
    return [normalized((found != 0).double()) for found in _jacobians(case, case.code)]


def reached(rest: float = 0.0, other: float = 1.0) -> Truth:
    """Every cell that by itself can change the value counts the same: extremes.

    Args:
        rest: the value of all cells but one.
        other: that of the one.
    """

    def truth(case: RuleCase) -> list[Tensor | None]:
        model = _double(case.code, case)
        numbers = case.numbers()
        resting = _tensors(model(torch.full(case.shape, rest).double()))
        found: list[list[Tensor]] = [[] for _ in resting]
        for cell in range(case.sources()):
            images = torch.where(numbers == cell, other, rest).double().expand(case.shape)
            for changes, before, after in zip(found, resting, _tensors(model(images)), strict=True):
                changes.append((after != before).double())
        return [normalized(torch.stack(changes, -1)) for changes in found]

    return truth


def averages(*codes: str, shares: Sequence[float] = ()) -> Truth:
    """The mean of what several pieces of moving code give: residuals, concatenations."""

    def truth(case: RuleCase) -> list[Tensor | None]:
        pieces = []
        for code in codes:
            cells = case.numbers().expand(case.shape).contiguous()
            (numbers,) = _tensors(_double(code, case)(cells))
            pieces.append(_looked_up(numbers, case))
        weights = shares or [1.0] * len(pieces)
        shape = torch.broadcast_shapes(*(piece.shape for piece in pieces))
        total = sum(share * p.expand(shape) for share, p in zip(weights, pieces, strict=True))
        assert isinstance(total, Tensor)
        return [total / sum(weights)]

    return truth


def spread(truth: Truth, dim: int) -> Truth:
    """Positions inside the channel axis ``dim`` of an output: their mean."""

    def averaged(case: RuleCase) -> list[Tensor | None]:
        return [one if one is None else _mean_along(one, dim) for one in truth(case)]

    return averaged


def on(code: str, truth: Truth) -> Truth:
    """The truth of other code, which gives one of the outputs."""
    return lambda case: truth(replace(case, code=code))


def linear_attention(features: str) -> Truth:
    """``Norm(|F|·|F|^T)`` over tokens, where code gives the features F (B, N, C)."""

    def truth(case: RuleCase) -> list[Tensor | None]:
        with torch.no_grad():
            found = _tensors(_double(features, case)(case.images().double()))[0].abs()
        tokens = found.shape[1]
        rows = torch.zeros(*found.shape, case.sources(), dtype=torch.float64)
        for image, keys in enumerate(found):
            own = slice(image * tokens, (image + 1) * tokens)
            weights = normalized(keys @ keys.mT).nan_to_num(1 / tokens)  # contract, point 4
            rows[image, :, :, own] = weights.unsqueeze(1)
        return [rows]

    return truth


def each(*truths: Truth) -> Truth:
    """A truth for each output; each of them sees all outputs."""

    def truth(case: RuleCase) -> list[Tensor | None]:
        found = [one(case) for one in truths]
        return [all_of[min(index, len(all_of) - 1)] for index, all_of in enumerate(found)]

    return truth


def looped(rows: Callable[[RuleCase], Tensor]) -> Truth:
    """A truth with one output, written as a loop."""
    return lambda case: [rows(case)]


def results(case: RuleCase) -> list[Tensor]:
    """What the code gives, in double precision."""
    return _tensors(_double(case.code, case)(case.images().double()))


def normalized(magnitudes: Tensor) -> Tensor:
    """Rows over the last dimension that sum to one."""
    magnitudes = magnitudes.abs()
    return magnitudes / magnitudes.sum(-1, keepdim=True)


def jacobian(code: str, case: RuleCase, **parts: Tensor) -> Tensor:
    """``|d output / d cell|`` of the only output, summed over the cell's channels."""
    (found,) = _jacobians(case, code, **parts)
    return found


def _jacobians(case: RuleCase, code: str, **parts: Tensor) -> list[Tensor]:
    """(*shape, sources) for each output, in double precision."""
    model = _double(code, case, **parts)
    images = case.images().double().requires_grad_()
    found = []
    for output in _tensors(model(images)):
        each_value = torch.eye(output.numel(), dtype=torch.float64)
        (gradients,) = torch.autograd.grad(
            output,
            images,
            each_value.reshape(-1, *output.shape),
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
        if gradients is None:
            gradients = torch.zeros(output.numel(), *images.shape, dtype=torch.float64)
        rows = gradients.abs().sum(1 + case.channel_dim).flatten(1)
        found.append(rows.reshape(*output.shape, -1))
    return found


def _mean_along(provenance: Tensor, dim: int) -> Tensor:
    return provenance.mean(dim, keepdim=True).expand_as(provenance)


def _confirm(case: RuleCase, found: Sequence[Tensor | None]) -> None:
    """Values change with cells that they have as sources only, and every such cell is seen."""
    for provenance, changed in zip(found, _changes(case), strict=True):
        assert provenance is not None
        sources = provenance > 0
        assert not bool((changed & ~sources).any()), "values depend on other positions"
        seen, expected = (cells.flatten(0, -2).any(0) for cells in (changed, sources))
        assert torch.equal(seen, expected), "values do not depend on their own position"


def _changes(case: RuleCase) -> list[Tensor]:
    """(*shape, sources) for each output: whether a value changes with a cell."""
    model, numbers, images = _double(case.code, case), case.numbers(), case.images().double()
    edges = torch.zeros_like(images)
    edges.select(case.channel_dim, 0).fill_(math.inf)
    others = (images.neg(), images * math.nan, edges)
    with torch.no_grad():
        before = _tensors(_seeded(model, images))
        found = [torch.zeros(*out.shape, case.sources(), dtype=torch.bool) for out in before]
        for source in range(case.sources()):
            for other in others:
                after = _tensors(_seeded(model, torch.where(numbers == source, other, images)))
                for changed, old, new in zip(found, before, after, strict=True):
                    same = (old == new) | (old.isnan() & new.isnan())
                    changed[..., source] |= ~same
    return found


def _seeded(model: Code, images: Tensor) -> Tensor | Sequence[Tensor]:
    torch.manual_seed(0)
    return model(images)


def _looked_up(numbers: Tensor, case: RuleCase) -> Tensor:
    """The one-hot row of each number, or the prior of the image in whose place it stands."""
    padded = numbers == PADDED
    rows = torch.eye(case.sources(), dtype=torch.float64)[numbers.masked_fill(padded, 0).long()]
    if bool(padded.any()):
        for image in range(case.shape[0]):
            rows[image][padded[image]] = case.prior(image)
    return rows


def _double(code: str, case: RuleCase, **parts: Tensor) -> Code:
    return from_expression(code, **{**case.parts, **parts}).double().eval()


def _tensors(value: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)
