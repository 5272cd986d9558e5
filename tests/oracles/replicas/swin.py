"""Replica for timm's SwinTransformer: attention in windows (equation 9), merging (Table 10)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers import PatchEmbed
from timm.models.swin_transformer import (
    PatchMerging,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerStage,
    WindowAttention,
)
from timm.models.swin_transformer_v2 import PatchMerging as PatchMergingV2
from timm.models.swin_transformer_v2 import (
    SwinTransformerV2,
    SwinTransformerV2Block,
    SwinTransformerV2Stage,
)
from torch import Tensor, nn

from .dense import expect, inputs_of, patch_means, pixel_labels, prior, residual, tokens_of

SwinStage = SwinTransformerStage | SwinTransformerV2Stage
SwinBlock = SwinTransformerBlock | SwinTransformerV2Block

# What timm adds to the score of two tokens that share a shifted window, but not a region.
SCORE_BETWEEN_REGIONS = -100.0

# Scores before masking (windows, heads, area, area) and values (windows, heads, area, d), from an
# attention module and its input (windows, area, C).
ScoresAndValues = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]


def aligned_labels(model: nn.Module, images: Tensor, label_image: Tensor) -> Tensor:
    """Label of the logits, (B, K) float64, for images (B, 3, H, W) and labels (B, K, H, W)."""
    return walk(expect(model, SwinTransformer), images, label_image, scores_and_values)


def walk(
    model: SwinTransformer | SwinTransformerV2,
    images: Tensor,
    label_image: Tensor,
    scores: ScoresAndValues,
) -> Tensor:
    """The walk over stages and blocks that both versions of Swin share; they differ in `scores`."""
    if model.global_pool != "avg":
        raise TypeError(f"this replica knows avg pooling, not {model.global_pool!r}")
    stages = [stage for stage in model.layers if isinstance(stage, SwinStage)]
    attentions = [block.get_submodule("attn") for stage in stages for block in stage.blocks]
    windows = dict(zip(attentions, inputs_of(attentions, model, images), strict=True))
    outside = prior(label_image)
    labels = patch_means(
        pixel_labels(label_image), *expect(model.patch_embed, PatchEmbed).patch_size
    )
    for stage in stages:
        if isinstance(stage.downsample, PatchMerging | PatchMergingV2):
            labels = merged_patches(labels, outside)
        else:
            expect(stage.downsample, nn.Identity)
        for block in stage.blocks:
            assert isinstance(block, SwinBlock)
            labels = through_block(
                block, windows[block.get_submodule("attn")], labels, outside, scores
            )
    return labels.mean(dim=(1, 2))


def merged_patches(labels: Tensor, outside: Tensor) -> Tensor:
    """Mean of every 2x2 patches; an odd last row or column is filled up with the prior."""
    rows, columns = labels.shape[1:3]
    filled = outside[:, None, None].repeat(1, rows + rows % 2, columns + columns % 2, 1)
    filled[:, :rows, :columns] = labels
    return patch_means(filled, 2, 2)


def through_block(
    block: SwinBlock, windows: Tensor, labels: Tensor, outside: Tensor, scores: ScoresAndValues
) -> Tensor:
    """Label map (B, rows, columns, K) after one block, given its attention's input windows."""
    rows, columns = labels.shape[1:3]
    matrix = mixing_matrix(block, windows, rows, columns, scores)
    carried = torch.cat([tokens_of(labels), outside[:, None]], dim=1)
    labels = residual(labels, (matrix @ carried).reshape(labels.shape))
    # x + MLP(x): the MLP mixes channels, so both sides of the sum carry the same label.
    return residual(labels, labels)


def mixing_matrix(
    block: SwinBlock,
    windows: Tensor,
    rows: int,
    columns: int,
    scores: ScoresAndValues,
) -> Tensor:
    """Attention among all tokens, (B, N, N + 1) with N = rows * columns.

    The last column gathers the attention that goes to zero padding, which carries the prior.
    """
    members = window_members(block.window_size, block.shift_size, rows, columns)
    probabilities = masked_probabilities(block, windows, rows, columns, scores)[0].mean(dim=1)
    probabilities = probabilities.unflatten(0, (-1, len(members)))  # image by image, then windows
    padding = rows * columns
    matrix = torch.zeros(probabilities.shape[0], padding, padding + 1, dtype=torch.float64)
    for window, tokens in enumerate(members):
        for query, target in enumerate(tokens):
            for key, source in enumerate(tokens):
                if target is None:  # cropped away again: nobody reads its label
                    continue
                column = padding if source is None else source
                matrix[:, target, column] += probabilities[:, window, query, key]
    return matrix


def masked_probabilities(
    block: SwinBlock,
    windows: Tensor,
    rows: int,
    columns: int,
    scores: ScoresAndValues,
) -> tuple[Tensor, Tensor]:
    """Attention probabilities (windows, heads, area, area) and values (windows, heads, area, d)."""
    unmasked, values = scores(block.attn, windows)
    regions = window_regions(block.window_size, block.shift_size, rows, columns)
    mask = torch.zeros(len(regions), *unmasked.shape[2:], dtype=torch.float64)
    for window, region in enumerate(regions):
        for query in range(len(region)):
            for key in range(len(region)):
                if region[query] != region[key]:
                    mask[window, query, key] = SCORE_BETWEEN_REGIONS
    images = unmasked.shape[0] // len(regions)
    return (unmasked + mask.repeat(images, 1, 1)[:, None]).softmax(dim=-1), values


def window_members(
    window_size: tuple[int, int], shift: tuple[int, int], rows: int, columns: int
) -> list[list[int | None]]:
    """For each window, in order, the token at each of its places; None where there is padding.

    The map is rolled up and left by `shift`, padded below and to the right to whole windows, and
    cut into windows, row by row.
    """

    def token(row: int, column: int) -> int | None:
        if row >= rows or column >= columns:
            return None
        return (row + shift[0]) % rows * columns + (column + shift[1]) % columns

    return [
        [token(row, column) for row, column in places]
        for places in window_places(window_size, rows, columns)
    ]


def window_regions(
    window_size: tuple[int, int], shift: tuple[int, int], rows: int, columns: int
) -> list[list[tuple[int, int]]]:
    """For each window, in order, the region of each of its places: only equal regions attend.

    Along a shifted axis of the padded map, the last window holds two regions: what was there
    before the shift, and the last `shift` places, where what was rolled over the edge belongs.
    """

    def region(place: int, window: int, shift: int, size: int) -> int:
        padded = -(-size // window) * window
        if shift == 0 or place < padded - window:
            return 0
        return 1 if place < padded - shift else 2

    return [
        [
            (
                region(row, window_size[0], shift[0], rows),
                region(column, window_size[1], shift[1], columns),
            )
            for row, column in places
        ]
        for places in window_places(window_size, rows, columns)
    ]


def window_places(
    window_size: tuple[int, int], rows: int, columns: int
) -> list[list[tuple[int, int]]]:
    """For each window of the padded map, in order, the (row, column) of each of its places."""
    height, width = window_size
    return [
        [(top + row, left + column) for row in range(height) for column in range(width)]
        for top in range(0, rows, height)
        for left in range(0, columns, width)
    ]


def scores_and_values(attention: nn.Module, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled products of queries and keys plus the relative position bias, and the values."""
    attention = expect(attention, WindowAttention)
    projected = windows @ attention.qkv.weight.detach().double().T
    if attention.qkv.bias is not None:
        projected = projected + attention.qkv.bias.detach().double()
    query, key, value = split_heads(projected, attention.num_heads)
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    height, width = attention.window_size
    table = attention.relative_position_bias_table.detach().double()
    table = table.reshape(2 * height - 1, 2 * width - 1, attention.num_heads)
    return scores + bias_by_distance(table, height, width), value


def split_heads(projected: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (windows, heads, area, d) from (windows, area, 3 heads d)."""
    query, key, value = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=-1)
    )
    return query, key, value


def bias_by_distance(table: Tensor, height: int, width: int) -> Tensor:
    """Bias (heads, area, area) from a table (2 height - 1, 2 width - 1, heads) of distances."""
    places = window_places((height, width), height, width)[0]
    bias = torch.zeros(table.shape[2], len(places), len(places), dtype=torch.float64)
    for query, (query_row, query_column) in enumerate(places):
        for key, (key_row, key_column) in enumerate(places):
            down = query_row - key_row + height - 1
            across = query_column - key_column + width - 1
            bias[:, query, key] = table[down, across]
    return bias
