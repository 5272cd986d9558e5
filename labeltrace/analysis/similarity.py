"""The "ground truth" mixing ratio, from the similarity of tokens: eq. 13 and Figure 6."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from labeltrace.errors import LabelError
from labeltrace.inspection.observer import Observer, observer_of
from labeltrace.tracing.ablation import layers_of

BLOCK_BYTES = 64 * 2**20
"""What the similarities of one block of tokens may take."""


def similarity_ratio(mixed: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """How much each token of a mixed image is like the first image's tokens, eq. 13.

    ``softmax(s1, s2)[0]``, where ``s1`` and ``s2`` are the largest cosine similarities of the token
    with any token of each image.  As cosines lie in [-1, 1], the ratio lies in [0.12, 0.88].

    Args:
        mixed: (B, N, C), tokens of the mixed images at one layer.
        first: (B, M, C), those of the first images.
        second: (B, M', C), those of the second.

    Returns:
        (B, N) float32, the first image's share.

    Raises:
        LabelError: the tensors do not fit.
    """
    for name, tokens in (("first", first), ("second", second)):
        if tokens.dim() != 3 or mixed.dim() != 3 or tokens.shape[::2] != mixed.shape[::2]:
            raise LabelError(
                f"tokens are (B, N, C) of one batch and width; mixed has {tuple(mixed.shape)}, "
                f"{name} {tuple(tokens.shape)}"
            )
    mixed, first, second = (normalize(t.detach().float(), dim=-1) for t in (mixed, first, second))
    similarities = torch.stack([_largest(mixed, first), _largest(mixed, second)])
    return similarities.softmax(0)[0]


def similarity_ratios(
    model: nn.Module | Observer,
    mixed: Tensor,
    first: Tensor,
    second: Tensor,
    layers: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """:func:`similarity_ratio` after each layer of a model, Figure 6.

    Args:
        model: the model, or an :class:`~labeltrace.inspection.observer.Observer` of it.
        mixed: (B, C, H, W), mixed images.
        first: (B, C, H, W), the first image of each.
        second: (B, C, H, W), the second.
        layers: nodes, modules' paths or patterns of paths; None for the model's layers, see
            :func:`labeltrace.tracing.ablation.layers_of`.

    Returns:
        (B, N) for each layer, tokens in the order of their labels.

    Raises:
        LabelError: the images do not fit, or there is no such layer.
    """
    observer = observer_of(model, mixed)
    seen = observer.named(layers_or_all(observer, layers))
    tokens = [observer.activations(images, seen) for images in (mixed, first, second)]
    return {name: similarity_ratio(*(each[name] for each in tokens)) for name in seen}


def layers_or_all(observer: Observer, layers: Sequence[str] | None) -> Sequence[str]:
    """The layers asked for, or all that the model has.

    Raises:
        LabelError: it has none.
    """
    found = layers_of(observer.trace) if layers is None else layers
    if not found:
        raise LabelError(
            "the model has no residual connections that would tell its layers; name some with "
            "layers="
        )
    return found


def _largest(mixed: Tensor, tokens: Tensor) -> Tensor:
    """The largest dot product of each token (B, N, C) with any of (B, M, C)."""
    rows = max(1, BLOCK_BYTES // (4 * tokens.shape[0] * tokens.shape[1]))
    blocks = [(part @ tokens.mT).amax(-1) for part in mixed.split(rows, 1)]
    return torch.cat(blocks, 1)
