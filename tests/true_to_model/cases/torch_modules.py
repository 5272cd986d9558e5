"""Modules of torch with state, parametrizations and laziness."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from tests.true_to_model.case import (
    PATCH,
    WIDTH,
    Patches,
    patches,
    pictures,
    prior,
    tokens,
    twin,
)


def _layer(layer: nn.Module) -> nn.Module:
    return Patches(lambda self, x: self.layer(x), layer=layer)


@twin(labels=patches)
def weight_norm_old() -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _layer(torch.nn.utils.weight_norm(nn.Conv2d(WIDTH, WIDTH, 1)))


@twin(labels=patches)
def weight_norm() -> nn.Module:
    return _layer(parametrizations.weight_norm(nn.Conv2d(WIDTH, WIDTH, 1)))


@twin(labels=patches)
def spectral_norm_old() -> nn.Module:
    return _layer(torch.nn.utils.spectral_norm(nn.Conv2d(WIDTH, WIDTH, 1)))


@twin(labels=patches)
def spectral_norm() -> nn.Module:
    return _layer(parametrizations.spectral_norm(nn.Conv2d(WIDTH, WIDTH, 1)))


@twin(labels=tokens)
def orthogonal_weight() -> nn.Module:
    layer = parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH))
    return Patches(lambda self, x: self.layer(x.flatten(2).mT), layer=layer)


class Symmetric(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.calls += 1
        return weight.triu() + weight.triu(1).mT


@twin(labels=tokens)
def parametrization_that_counts_cached() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        with parametrize.cached():
            return self.layer(self.layer(x.flatten(2).mT))

    layer = nn.Linear(WIDTH, WIDTH)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return Patches(forward, layer=layer)


def _parametrized(model: Any, index: int) -> None:
    if index == 1:
        parametrize.register_parametrization(model.layer, "weight", Symmetric())
    else:
        parametrize.remove_parametrizations(model.layer, "weight")


@twin(labels=tokens, change=_parametrized)
def parametrization_comes_and_goes() -> nn.Module:
    return Patches(lambda self, x: self.layer(x.flatten(2).mT), layer=nn.Linear(WIDTH, WIDTH))


@twin(labels=patches)
def pruned_weight() -> nn.Module:
    layer = nn.Conv2d(WIDTH, WIDTH, 1)
    prune.random_unstructured(layer, "weight", 0.4)
    return _layer(layer)


@twin(labels=prior)
def lazy_linear() -> nn.Module:
    return Patches(lambda self, x: self.layer(x.mean((2, 3))), layer=nn.LazyLinear(5))


@twin(labels=patches)
def lazy_convolution_and_norm() -> nn.Module:
    return _layer(nn.Sequential(nn.LazyConv2d(5, 1), nn.LazyBatchNorm2d()))


@twin(calls=4, labels=patches)
def batch_norm_with_cumulative_average() -> nn.Module:
    return _layer(nn.BatchNorm2d(WIDTH, momentum=None))


@twin(labels=patches)
def batch_norm_without_statistics() -> nn.Module:
    return _layer(nn.Sequential(nn.BatchNorm2d(WIDTH, track_running_stats=False), nn.ReLU(True)))


@twin(labels=patches)
def instance_norm_with_statistics() -> nn.Module:
    return _layer(nn.InstanceNorm2d(WIDTH, affine=True, track_running_stats=True))


def _evaluation(model: Any, index: int) -> None:
    model.eval()
    model.layer.reset_running_stats() if index == 2 else None


@twin(labels=patches, change=_evaluation)
def batch_norm_in_eval_mode_reset() -> nn.Module:
    return _layer(nn.BatchNorm2d(WIDTH))


@twin(labels=patches)
def batch_renormalization_by_hand() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        factor = 1 / (1 + self.steps)
        with torch.no_grad():
            self.mean += factor * (x.mean((0, 2, 3)) - self.mean)
        self.steps += 1
        return F.batch_norm(x, self.mean, self.variance, training=False)

    model = Patches(forward, steps=0)
    model.register_buffer("mean", torch.zeros(WIDTH))
    model.register_buffer("variance", torch.ones(WIDTH))
    return model


@twin()
def lstm_over_tokens() -> nn.Module:
    layer = nn.LSTM(WIDTH, 5, batch_first=True, num_layers=2, dropout=0.2)
    return Patches(lambda self, x: self.layer(x.flatten(2).mT)[0], layer=layer)


@twin()
def gru_with_a_state_that_is_kept() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        out, state = self.layer(x.flatten(2).mT, self.state)
        self.state = state.detach()
        return out

    return Patches(forward, layer=nn.GRU(WIDTH, 5, batch_first=True), state=None)


@twin(labels=patches)
def sequential_called_by_hand() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        for _, layer in self.layers.named_children():
            x = layer.forward(x)
        return x

    layers = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), nn.PReLU(), nn.Identity())
    return Patches(forward, layers=layers)


@twin(labels=patches)
def module_made_in_forward() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.made = nn.Conv2d(WIDTH, WIDTH, 1)
        return self.made(x)

    return Patches(forward)


@twin(labels=patches)
def parameter_made_on_the_first_call() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        if not hasattr(self, "scale"):
            self.scale = nn.Parameter(torch.randn(x.shape[1], 1, 1))
        return x * self.scale

    return Patches(forward)


@twin(labels=patches)
def submodule_replaced_in_forward() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.act = nn.Tanh() if isinstance(self.act, nn.ReLU) else nn.ReLU()
        return self.act(x)

    return Patches(forward, act=nn.ReLU())


@twin(labels=tokens)
def fake_quantization() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        scale = float(x.detach().abs().max()) / 127
        return (x.flatten(2).mT / scale).round().clamp(-128, 127) * scale

    return Patches(forward)


@twin(
    labels=lambda seen: F.avg_pool2d(seen.labels, PATCH),
    inputs=lambda index: (pictures(index).requires_grad_(),),
)
def embedding_of_positions_interpolated() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        return x + F.interpolate(self.position, size=x.shape[2:], mode="bicubic")

    return Patches(forward, position=nn.Parameter(torch.randn(1, WIDTH, 3, 3)))
