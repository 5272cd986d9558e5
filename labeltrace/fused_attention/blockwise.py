"""Fused attention's labels in blocks that stay in the cache: plain torch, any device."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Scores that are in work at once.  A processor's core goes through three arrays of this size
# (scores, probabilities, their sum), 0.5 MiB each; measured fastest among 0.125 to 1 MiB.
_SCORES_A_CORE = 2**17
_SCORES_ELSEWHERE = 2**24
_FEWEST_ROWS = 32  # of one matrix product, however long its rows are


def attend_in_blocks(
    query: Tensor,
    key: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float,
) -> Tensor:
    """Run ``labeltrace::attend`` block by block of samples and queries, head by head.

    Args:
        query: (A, B, H, L, E), two batch dimensions.
        key: (A, B, G, S, E).
        labels: (A, B, S, K).
        mask: (A, B, H, L, S).
        is_causal: query i sees keys 0 to i only.
        scale: of the scores.

    Returns:
        (A, B, L, K), float32.
    """
    outer, inner, _, queries, _ = query.shape
    result = labels.new_empty(outer, inner, queries, labels.shape[-1])
    samples, rows = _block_sizes(inner, queries, key.shape[-2], query.device)
    with torch.autocast(query.device.type, enabled=False):
        for place, sample, row in itertools.product(
            range(outer), range(0, inner, samples), range(0, queries, rows)
        ):
            of_batch, of_rows = slice(sample, sample + samples), slice(row, row + rows)
            block = _Block(
                query=query[place, of_batch, :, of_rows].to(torch.float32) * scale,
                key=key[place, of_batch],
                labels=labels[place, of_batch].transpose(-2, -1).contiguous(),
                mask=None if mask is None else mask[place, of_batch, :, of_rows],
                first_row=row if is_causal else None,
            )
            result[place, of_batch, of_rows] = _mixed(block).transpose(-2, -1)
    return result


def _block_sizes(batch: int, queries: int, keys: int, device: torch.device) -> tuple[int, int]:
    """How many samples and how many of their queries a block has; more than one sample if whole."""
    cores = torch.get_num_threads()
    scores = _SCORES_A_CORE * cores if device.type == "cpu" else _SCORES_ELSEWHERE
    rows = min(queries, max(scores // max(keys, 1), _FEWEST_ROWS))
    return max(1, min(batch, scores // max(rows * keys, 1))), max(rows, 1)


@dataclass(frozen=True, slots=True)
class _Block:
    """Some queries of some samples, and all keys of these."""

    query: Tensor  # (samples, H, rows, E), float32, scaled
    key: Tensor  # (samples, G, S, E)
    labels: Tensor  # (samples, K, S), contiguous: so a product with few of them is 3 times as fast
    mask: Tensor | None  # (samples, H, rows, S)
    first_row: int | None  # the place of the first query where attention is causal


def _mixed(block: _Block) -> Tensor:
    """(samples, K, rows)."""
    # Lost rows are NaN; they are rare, and to look costs a wait on devices other than this.
    if block.query.device.type == "cpu":
        mixed = _product(block, _sum_over_heads(block))
        if not bool(mixed.isnan().any()):
            return mixed
    return _mixed_with_lost_rows(block)


def _sum_over_heads(block: _Block) -> Tensor:
    """The probabilities of all heads added up, (samples, rows, S)."""
    total = _probabilities(block, 0)
    for head in range(1, block.query.shape[1]):
        total += _probabilities(block, head)
    return total


def _mixed_with_lost_rows(block: _Block) -> Tensor:
    """As :func:`_mixed`; rows that are masked whole, or not finite, are NaN and mix equally."""
    total = torch.zeros((), device=block.query.device)
    times_lost = torch.zeros((), device=block.query.device)
    for head in range(block.query.shape[1]):
        probabilities = _probabilities(block, head)
        lost = probabilities[..., :1].isnan()
        total = total + probabilities.masked_fill_(lost, 0)
        times_lost = times_lost + lost
    return _product(block, total + times_lost / block.labels.shape[-1])


def _product(block: _Block, total: Tensor) -> Tensor:
    """The labels times probabilities that are added up over the heads, (samples, K, rows)."""
    return torch.bmm(block.labels, total.transpose(-2, -1)).div_(block.query.shape[1])


def _probabilities(block: _Block, head: int) -> Tensor:
    """One head's, (samples, rows, S); NaN throughout a row without a finite softmax."""
    heads_a_key = block.query.shape[1] // block.key.shape[1]
    key = block.key[:, head // heads_a_key].to(torch.float32)
    scores = torch.bmm(block.query[:, head], key.transpose(-2, -1))
    if block.first_row is not None:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        scores.masked_fill_(~seen.tril_(block.first_row), -math.inf)
    if block.mask is not None:
        mask = block.mask[:, head]
        if mask.dtype == torch.bool:
            scores.masked_fill_(~mask, -math.inf)
        else:
            scores += mask.to(torch.float32)
    return scores.softmax(-1)
