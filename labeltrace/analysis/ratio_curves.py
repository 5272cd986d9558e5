"""Mixing ratios layer by layer: Figure 4 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from labeltrace.analysis.similarity import resolve_layers, similarity_ratios
from labeltrace.errors import LabelError
from labeltrace.flow import OneSourceStep, Operation
from labeltrace.inspection.observer import Observer, as_observer
from labeltrace.inspection.single_steps import isolate_steps, source_place, source_sizes


@dataclass(frozen=True, eq=False, slots=True)
class RatioCurves:
    """The share of the first image according to four methods.

    Attributes:
        layers: the names of the L layers.
        cutmix: (B,), the share of pixels; the same at every layer (eq. 1).
        transmix: (B,), pixels weighted by the last mixing step, the same at every layer (Chen et
            al., "TransMix", 2022); None if the tokens of that step form no map.
        alignment: (L, B), the aligned labels after each layer.
        similarity: (L, B), the "ground truth" of eq. 13 after each layer.
    """

    layers: tuple[str, ...]
    cutmix: Tensor
    transmix: Tensor | None
    alignment: Tensor
    similarity: Tensor


def ratio_curves(
    model: nn.Module | Observer,
    mixed: Tensor,
    labels: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    token: int | None = None,
    layers: Sequence[str] | None = None,
) -> RatioCurves:
    """The mixing ratio of a token after each layer, by four methods: Figure 4.

    Args:
        model: the model, or an `labeltrace.Observer` of it.
        mixed: (B, C, H, W), mixed images.
        labels: (B, 2, H, W), their label image: the shares of first and second images.
        first: (B, C, H, W), the first source image of each mixed image.
        second: (B, C, H, W), the second source image.
        token: index of the token to follow, 0 for the class token of a ViT as in the paper; None
            for the mean of all tokens.
        layers: names of nodes, paths of modules or patterns of paths; None for the model's layers,
            see `labeltrace.tracing.ablation.layers_of`.

    Raises:
        LabelError: images or labels do not fit, or there is no such layer or token.

    Examples:
        >>> import torch
        >>> from labeltrace import CutMix
        >>> from labeltrace.analysis import ratio_curves
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.Conv2d(8, 8, 3, padding=1)
        ... )
        >>> images = torch.rand(2, 3, 16, 16)
        >>> batch = CutMix(partner="flip")(images, torch.tensor([0, 1]))
        >>> curves = ratio_curves(
        ...     model, batch.images, batch.labels, images, images.flip(0), layers=["0", "1"]
        ... )
        >>> curves.alignment.shape, curves.similarity.shape
        (torch.Size([2, 2]), torch.Size([2, 2]))
    """
    if labels.dim() != 4 or labels.shape[1] != 2:
        raise LabelError(
            f"labels have shape {tuple(labels.shape)}; pass a label image (B, 2, H, W), which says "
            "for each pixel which of two images it comes from"
        )
    observer = as_observer(model, mixed)
    names = resolve_layers(observer, layers)
    aligned = observer.labels(mixed, labels, observer.find_places(names))
    similar = similarity_ratios(observer, mixed, first, second, names)
    return RatioCurves(
        layers=tuple(aligned),
        cutmix=labels[:, 0].mean((1, 2)),
        transmix=_transmix(observer, mixed, labels, token),
        alignment=torch.stack(
            [_select_token(token, layer.labels[..., 0]) for layer in aligned.values()]
        ),
        similarity=torch.stack([_select_token(token, shares) for shares in similar.values()]),
    )


def _transmix(
    observer: Observer, mixed: Tensor, labels: Tensor, token: int | None
) -> Tensor | None:
    """The label image, weighted by the row of the last mixing matrix without prefix tokens."""
    trace = observer.trace
    mixing = [
        field
        for field, step in trace.steps.items()
        if step.operation is Operation.SPATIAL_MIXING and isinstance(step, OneSourceStep)
    ]
    if not mixing:
        return None
    grid = observer.grids(mixed, {"source": source_place(trace, mixing[-1])})["source"]
    if grid is None:
        return None
    sizes = source_sizes(trace, mixing[-1])
    pixels = labels.float().expand(-1, -1, *mixed.shape[2:])
    patches = adaptive_avg_pool2d(pixels, grid.shape).flatten(2)
    sources = labels.new_zeros(len(mixed), 3, torch.Size(sizes).numel(), dtype=torch.float32)
    sources[:, 2] = 1  # a third source for tokens without a position in the image; dropped below
    sources[:, 2, grid.index.flatten()] = 0
    sources[:, :2, grid.index.flatten()] = patches
    (field,) = observer.run(isolate_steps(trace, mixing[-1:]), mixed, sources.unflatten(-1, sizes))
    shares = _select_token(token, field[..., 0]), _select_token(token, field[..., 1])
    return shares[0] / (shares[0] + shares[1])


def _select_token(token: int | None, values: Tensor) -> Tensor:
    """One token's value of (B, N), or the mean of all."""
    if token is None:
        return values.mean(1)
    if not 0 <= token < values.shape[1]:
        raise LabelError(f"there is no token {token}; choose one below {values.shape[1]}")
    return values[:, token]
