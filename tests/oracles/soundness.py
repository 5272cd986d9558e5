"""Soundness against autograd: labels name only what the Jacobian says an output can read."""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor, nn

ROUNDING = 1e-6
"""Resampling reads at coordinates in float32, a trifle beside those of the double model."""

ROUNDING_OF_DOUBLES = 1e-12
"""Of the most that a position reads: the double model's own coordinates are rounded as well."""


def check_soundness(
    model: nn.Module,
    labels: Tensor,
    images: Tensor,
    cells: Tensor,
    *,
    equal: bool,
    prior: bool,
    channel_dim: int = 1,
    most: int | None = None,
) -> None:
    """Compare the sources of each position with the Jacobian in double precision.

    Args:
        model: in eval mode; left as it is.
        labels: its labels for some of the images, whose sources are `cells`: (b, ..., K, ...).
        images: (B, C, rows, columns). Several show what one alone hides: the branch of a ReLU or
            a maximum that it does not take, a score so low that its weight is lost in rounding.
        cells: which pixels each source has: (1, K, rows, columns), one-hot over the sources.
        equal: whether the output is to have every source that it can read, too.
        prior: whether positions that do not come from the image join on the way. They have all
            sources alike, and so has what reads them, which is no content.
        channel_dim: the channels of the output, in whose place the labels have the sources.
        most: how many of the positions to compare, drawn at random; all of them if None.
    """
    flows = labels.double().movedim(channel_dim, -1)
    flows = flows.reshape(len(flows), -1, flows.shape[-1])
    chosen = torch.randperm(flows.shape[1], generator=torch.Generator().manual_seed(3))[:most]
    flows = flows[:, chosen]
    magnitudes = _jacobian(model, images, channel_dim, chosen) @ cells[0].flatten(1).double().T
    assert flows.shape[1:] == magnitudes.shape
    reads = magnitudes > 0
    floor = torch.zeros(1, 1, 1, dtype=torch.float64)
    if prior:
        shares = cells[0].flatten(1).double().mean(1)
        floor = (flows / shares).amin(2, keepdim=True) * shares
    content = (flows > floor * (1 + 1e-5) + 1e-12).any(0)
    beyond_rounding = (flows > floor * (1 + 1e-5) + ROUNDING).any(0)
    unsound = beyond_rounding & ~reads
    assert not bool(unsound.any()), f"sources without information: {unsound.nonzero().tolist()}"
    if equal and (not prior or bool((~reads).any(1).all())):
        missing = (magnitudes > ROUNDING_OF_DOUBLES * magnitudes.amax(1, keepdim=True)) & ~content
        assert not bool(missing.any()), f"information without source: {missing.nonzero().tolist()}"


def _jacobian(model: nn.Module, images: Tensor, channel_dim: int, chosen: Tensor) -> Tensor:
    """How strongly each chosen position reads each pixel: (positions, pixels), never negative.

    A random combination of the output's channels is differentiated, so that only information that
    flows nowhere gives zero.
    """
    images = images.double().requires_grad_()
    outputs = _differentiable(model)(images).movedim(channel_dim, -1)
    outputs = outputs.reshape(len(images), -1, outputs.shape[-1])
    generator = torch.Generator().manual_seed(2)
    channels = torch.randn(outputs.shape[-1], generator=generator, dtype=torch.float64)
    rows = []
    for value in (outputs @ channels).sum(0)[chosen]:
        (gradient,) = torch.autograd.grad(value, images, retain_graph=True)
        rows.append(gradient.abs().sum((0, 1)).flatten())
    return torch.stack(rows)


def _differentiable(model: nn.Module) -> nn.Module:
    """A copy in double precision whose gradients are right.

    On a processor PyTorch's (2.11 and 2.14) gradient of a batch norm in eval mode is not, where an
    axis has size one and strides alone would say which one: it names other positions.
    """
    model = copy.deepcopy(model).double()
    for layer in model.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.forward = functools.partial(_normalized, layer)
    return model


def _normalized(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """A batch norm in eval mode, spelled out."""
    assert not layer.training
    assert layer.running_mean is not None
    assert layer.running_var is not None
    spread = (layer.running_var + layer.eps).sqrt()
    normalized = (x - layer.running_mean[:, None, None]) / spread[:, None, None]
    if not layer.affine:
        return normalized
    return normalized * layer.weight[:, None, None] + layer.bias[:, None, None]
