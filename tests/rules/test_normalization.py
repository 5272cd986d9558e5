"""Normalization is what is computed, not its name: a stream minus a statistic of itself.

Every cell is a source of its own, so that a label says which positions a value depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace

BATCH, CHANNELS, ROWS, COLUMNS = 2, 6, 5, 7
CELLS = ROWS * COLUMNS
SPACE = (2, 3)


class Layers(nn.Module):
    """A function of the images, beside layers that it may call."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.linear = nn.Linear(CHANNELS, CHANNELS)
        self.weight = nn.Parameter(torch.rand(CHANNELS, 1, 1))
        self.mixing = nn.Parameter(torch.full((CELLS, CELLS), 1 / CELLS))
        self.norm = nn.InstanceNorm2d(CHANNELS)

    def forward(self, images: Tensor) -> Tensor:
        return self.function(self, images)


def images() -> Tensor:
    return torch.rand(BATCH, CHANNELS, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))


def cells() -> Tensor:
    """Every cell as a source: (B, cells, rows, columns)."""
    return torch.eye(CELLS).reshape(1, CELLS, ROWS, COLUMNS).repeat(BATCH, 1, 1, 1)


def label_and_operations(function: Callable[[Any, Tensor], Tensor]) -> tuple[Tensor, list[str]]:
    model = Layers(function)
    aligned = labeltrace.align(model)
    outputs, labels = aligned(images(), cells())
    assert torch.equal(outputs, model(images()))
    return labels, [str(node.operation) for node in aligned.trace(images()).nodes]


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).mT


def mean(x: Tensor, dims: tuple[int, ...] = SPACE) -> Tensor:
    return x.mean(dims, keepdim=True)


def by_moments(self: Any, x: Tensor) -> Tensor:
    variance, average = torch.var_mean(x, SPACE, keepdim=True)
    return (x - average) * torch.rsqrt(variance + 1e-5) * self.weight + self.weight


def by_group(self: Any, x: Tensor) -> Tensor:
    groups = x.view(BATCH, 3, -1)
    return ((groups - mean(groups, (2,))) / groups.std(2, keepdim=True)).view_as(x)


def in_place(self: Any, x: Tensor) -> Tensor:
    y = x + 0
    average = mean(y)
    return y.sub_(average).div_(y.std(SPACE, keepdim=True) + 1e-5)


def as_affine(self: Any, x: Tensor) -> Tensor:
    scale = self.weight * torch.rsqrt(x.var(SPACE, keepdim=True) + 1e-5)
    return x * scale + (1 - mean(x) * scale)


def from_squares(self: Any, x: Tensor) -> Tensor:
    variance = mean(x * x) - mean(x) * mean(x)
    return (x - mean(x)) / (variance + 1e-5).sqrt()


def spatial_softmax(self: Any, x: Tensor) -> Tensor:
    powers = (x - x.amax(SPACE, keepdim=True)).exp()
    return powers / powers.sum(SPACE, keepdim=True)


def with_ones(self: Any, x: Tensor) -> Tensor:
    flat = x.flatten(2)
    return (flat - flat @ (torch.ones(CELLS, CELLS) / CELLS)).view_as(x)


NORMALIZATIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a layer": lambda self, x: self.norm(x),
    "mean": lambda self, x: x - mean(x),
    "mean first": lambda self, x: mean(x) - x,
    "negated mean": lambda self, x: x + -mean(x),
    "mean times minus one": lambda self, x: x + mean(x) * -1,
    "alpha": lambda self, x: torch.add(x, mean(x), alpha=-1),
    "no keepdim": lambda self, x: x - x.mean(SPACE)[:, :, None, None],
    "a view": lambda self, x: x - x.flatten(2).mean(2).view(BATCH, CHANNELS, 1, 1),
    "expanded": lambda self, x: x - mean(x).expand_as(x),
    "tokens": lambda self, x: (tokens(x) - mean(tokens(x), (1,))).mT.reshape(x.shape),
    "rows": lambda self, x: x - x.mean(3).unsqueeze(3),
    "columns": lambda self, x: (x - mean(x, (2,))) / x.norm(dim=2, keepdim=True),
    "one axis after the other": lambda self, x: x - mean(mean(x, (2,)), (3,)),
    "moments": by_moments,
    "spread": lambda self, x: torch.div(x - mean(x), torch.std_mean(x, SPACE, keepdim=True)[0]),
    "groups": by_group,
    "groups repeated": lambda self, x: (
        x - x.view(BATCH, 2, 3, -1).mean((2, 3)).repeat_interleave(3, 1)[:, :, None, None]
    ),
    "layer": lambda self, x: x - mean(x, (1, 2, 3)),
    "batch": lambda self, x: x - mean(x, (0, 2, 3)),
    "batch in torch's call": lambda self, x: F.batch_norm(
        x, x.mean((0, 2, 3)), x.var((0, 2, 3)), training=False
    ),
    "minimum and maximum": lambda self, x: (
        (x - x.amin(SPACE, True)) / (x.amax(SPACE, True) - x.amin(SPACE, True))
    ),
    "median": lambda self, x: x - x.flatten(2).median(2).values[:, :, None, None],
    "root mean square": lambda self, x: x * torch.rsqrt(mean(x * x) + 1e-5),
    "in place": in_place,
    "affine": as_affine,
    "squares": from_squares,
    "softmax": spatial_softmax,
    "ones": with_ones,
    "einsum": lambda self, x: x - torch.einsum("bchw->bc", x)[:, :, None, None] / CELLS,
    "pooled": lambda self, x: x - F.adaptive_avg_pool2d(x, 1),
    "one window": lambda self, x: x - F.avg_pool2d(x, (ROWS, COLUMNS)),
    "of a function": lambda self, x: x.relu() - mean(x.sigmoid()),
    "a learned share": lambda self, x: x - self.weight * mean(x),
    "without gradient": lambda self, x: x - mean(x).detach(),
    "of features": lambda self, x: (lambda y: y - mean(y))(self.conv(x)),
}


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_normalization_is_point_wise(name: str) -> None:
    label, operations = label_and_operations(NORMALIZATIONS[name])
    assert torch.equal(label, cells())
    assert "residual" not in operations


def chunked(self: Any, x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    return first - mean(second)


def along_other_axis(self: Any, x: Tensor) -> Tensor:
    square = x[..., :ROWS]
    return square - square.mean(2)[:, :, :, None]


def partly_learned(self: Any, x: Tensor) -> Tensor:
    return x - torch.cat([mean(x)[:, :3], self.conv(mean(x))[:, 3:]], 1)


def written_over(self: Any, x: Tensor) -> Tensor:
    y = x.clone()
    average = mean(y)
    y.copy_(self.conv(x))
    return y - average


STREAMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "the mean added": lambda self, x: x + mean(x),
    "a learned mean": lambda self, x: x - self.conv(mean(x)),
    "a mean of learned features": lambda self, x: x - mean(self.conv(x)),
    "global context": lambda self, x: x + self.linear(x.mean(SPACE))[:, :, None, None],
    "negative context": lambda self, x: x - self.linear(x.mean(SPACE))[:, :, None, None],
    "learned positions": lambda self, x: (lambda t: (t - t @ self.mixing).view_as(x))(x.flatten(2)),
    "a local mean": lambda self, x: F.avg_pool2d(x, 3, 1, 1) - x,
    "a pyramid": lambda self, x: x + F.interpolate(F.adaptive_avg_pool2d(x, 1), (ROWS, COLUMNS)),
    "an interpolation": lambda self, x: x - F.interpolate(mean(x), (ROWS, COLUMNS)),
    "other channels": lambda self, x: x[:, :3] - mean(x[:, 3:]),
    "one channel": lambda self, x: x - mean(x[:, :1]),
    "a chunk": chunked,
    "other positions": lambda self, x: x - mean(x[:, :, :3]),
    "rows along columns": along_other_axis,
    "another image": lambda self, x: x - mean(x.flip(0)),
    "partly learned": partly_learned,
    "of an overwritten stream": written_over,
}


@pytest.mark.parametrize("name", STREAMS)
def test_other_sums_of_streams_stay_residual(name: str) -> None:
    label, operations = label_and_operations(STREAMS[name])
    assert "residual" in operations
    assert not torch.equal(label, cells()[..., : label.shape[-1]])
