"""The "ground truth" mixing ratio from the similarity of tokens: eq. 13, Figure 6 of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from labeltrace.errors import LabelError
from labeltrace.inspection.observer import Observer, as_observer
from labeltrace.tracing.ablation import layers_of

BLOCK_BYTES = 64 * 2**20
"""Memory limit for the similarities of one block of tokens."""


def similarity_ratio(mixed: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The share of the first image in each token of a mixed image, by similarity: eq. 13.

    `softmax(s1, s2)[0]`, where `s1` and `s2` are the largest cosine similarities of the token to
    any token of each image. Cosines are in [-1, 1], so the ratio is in [0.12, 0.88].

    Args:
        mixed: (B, N, C), tokens of the mixed images at one layer.
        first: (B, M, C), tokens of the first images.
        second: (B, M', C), tokens of the second images.

    Returns:
        (B, N) float32, the first image's share.

    Raises:
        LabelError: the tensors do not fit.

    Examples:
        >>> import torch
        >>> from labeltrace.analysis import similarity_ratio
        >>> first, second = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
        >>> similarity_ratio(torch.cat([first, second], dim=1), first, second)
        tensor([[0.7311, 0.2689]])
    """
    for name, tokens in (("first", first), ("second", second)):
        if tokens.dim() != 3 or mixed.dim() != 3 or tokens.shape[::2] != mixed.shape[::2]:
            raise LabelError(
                f"pass tokens (B, N, C) with the same batch and channels; mixed has shape "
                f"{tuple(mixed.shape)}, {name} {tuple(tokens.shape)}"
            )
    mixed, first, second = (normalize(t.detach().float(), dim=-1) for t in (mixed, first, second))
    similarities = torch.stack([_max_similarity(mixed, first), _max_similarity(mixed, second)])
    return similarities.softmax(0)[0]


def similarity_ratios(
    model: nn.Module | Observer,
    mixed: Tensor,
    first: Tensor,
    second: Tensor,
    layers: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """`similarity_ratio` after each layer of a model: Figure 6.

    Args:
        model: the model, or an `labeltrace.Observer` of it.
        mixed: (B, C, H, W), mixed images.
        first: (B, C, H, W), the first source image of each mixed image.
        second: (B, C, H, W), the second source image.
        layers: names of nodes, paths of modules or patterns of paths; None for the model's layers,
            see `labeltrace.tracing.ablation.layers_of`.

    Returns:
        (B, N) for each layer, tokens in the order of their labels.

    Raises:
        LabelError: the images do not fit, or there is no such layer.

    Examples:
        >>> import torch
        >>> from labeltrace.analysis import similarity_ratios
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4))
        >>> first, second = torch.rand(2, 1, 3, 8, 8)
        >>> mixed = torch.cat([first[..., :4], second[..., 4:]], dim=-1)
        >>> similarity_ratios(model, mixed, first, second, layers=["0"])["0"].shape
        torch.Size([1, 4])
    """
    observer = as_observer(model, mixed)
    places = observer.find_places(resolve_layers(observer, layers))
    tokens = [observer.activations(images, places) for images in (mixed, first, second)]
    return {name: similarity_ratio(*(each[name] for each in tokens)) for name in places}


def resolve_layers(observer: Observer, layers: Sequence[str] | None) -> Sequence[str]:
    """The given layers, or all layers of the model.

    Raises:
        LabelError: no layers are given and none are found.
    """
    found = layers_of(observer.trace) if layers is None else layers
    if not found:
        raise LabelError(
            "the model has no residual connections, by which layers are found; name its layers "
            "with layers="
        )
    return found


def _max_similarity(mixed: Tensor, tokens: Tensor) -> Tensor:
    """The largest dot product of each token (B, N, C) with any of the tokens (B, M, C): (B, N)."""
    rows = max(1, BLOCK_BYTES // (4 * tokens.shape[0] * tokens.shape[1]))
    blocks = [(block @ tokens.mT).amax(-1) for block in mixed.split(rows, 1)]
    return torch.cat(blocks, 1)
