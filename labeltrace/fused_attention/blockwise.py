"""`labeltrace::attend` in plain torch, on any device: in blocks that stay in the cache."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Scores of one block. A CPU core goes through three arrays of this size (scores, probabilities,
# their sum), 0.5 MiB each; measured fastest among 0.125 to 1 MiB.
_SCORES_A_CORE = 2**17
_SCORES_ELSEWHERE = 2**24
_FEWEST_ROWS = 32  # of one matrix product, even if its rows are long


def attend_in_blocks(
    query: Tensor,
    key: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float,
) -> Tensor:
    """Run `labeltrace::attend` block by block of samples and queries, head by head.

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
    """How many samples and queries a block has; several samples only with all their queries."""
    cores = torch.get_num_threads()
    scores = _SCORES_A_CORE * cores if device.type == "cpu" else _SCORES_ELSEWHERE
    rows = min(queries, max(scores // max(keys, 1), _FEWEST_ROWS))
    return max(1, min(batch, scores // max(rows * keys, 1))), max(rows, 1)


@dataclass(frozen=True, slots=True)
class _Block:
    """Some queries of some samples, and all keys of these samples."""

    query: Tensor  # (samples, H, rows, E), float32, scaled
    key: Tensor  # (samples, G, S, E)
    labels: Tensor  # (samples, K, S), contiguous, which makes products with few labels 3× faster
    mask: Tensor | None  # (samples, H, rows, S)
    first_row: int | None  # the index of the first query if attention is causal


def _mixed(block: _Block) -> Tensor:
    """The mixed labels of a block, (samples, K, rows)."""
    # Rows without a finite softmax are NaN. They are rare; on a GPU the check would synchronize.
    if block.query.device.type == "cpu":
        mixed = _product(block, _sum_over_heads(block))
        if not bool(mixed.isnan().any()):
            return mixed
    return _mixed_with_lost_rows(block)


def _sum_over_heads(block: _Block) -> Tensor:
    """The sum of all heads' probabilities, (samples, rows, S)."""
    total = _probabilities(block, 0)
    for head in range(1, block.query.shape[1]):
        total += _probabilities(block, head)
    return total


def _mixed_with_lost_rows(block: _Block) -> Tensor:
    """As `_mixed`, but NaN rows (masked entirely, or not finite) mix all keys equally."""
    total = torch.zeros((), device=block.query.device)
    times_lost = torch.zeros((), device=block.query.device)
    for head in range(block.query.shape[1]):
        probabilities = _probabilities(block, head)
        lost = probabilities[..., :1].isnan()
        total = total + probabilities.masked_fill_(lost, 0)
        times_lost = times_lost + lost
    return _product(block, total + times_lost / block.labels.shape[-1])


def _product(block: _Block, total: Tensor) -> Tensor:
    """The labels times the heads' mean probabilities, (samples, K, rows); `total` is their sum."""
    return torch.bmm(block.labels, total.transpose(-2, -1)).div_(block.query.shape[1])


def _probabilities(block: _Block, head: int) -> Tensor:
    """The probabilities of one head, (samples, rows, S); all NaN in rows without finite softmax."""
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
