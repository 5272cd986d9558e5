"""Tensors that forward keeps: losses, caches, statistics, queues."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.true_to_model.case import (
    WIDTH,
    Patches,
    Seen,
    constant_images,
    patches,
    prior,
    tokens,
    twin,
)


def _with_auxiliary(model: Any, outputs: Any) -> Tensor:
    return outputs.square().sum() + 0.3 * model.aux_loss


@twin(labels=patches, loss=_with_auxiliary)
def auxiliary_loss_as_attribute() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.aux_loss = x.abs().mean()
        return x.relu()

    return Patches(forward)


@twin(labels=patches, loss=lambda model, out: out.sum() + sum(model.losses.values()))
def losses_in_a_dict() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.losses["size"] = x.square().mean()
        self.losses["rows"] = x.mean((1, 3)).std()
        return x.relu()

    return Patches(forward, losses={})


@twin(labels=patches, loss=lambda model, out: out.sum() + model.losses[-1])
def losses_in_a_list_that_grows() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.losses.append(x.square().mean())
        return x.relu()

    return Patches(forward, losses=[])


@twin(labels=patches)
def loss_kept_detached() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.loss = x.square().mean().detach()
        self.number = self.loss.item()
        return x

    return Patches(forward)


@twin(labels=patches)
def loss_kept_in_a_submodule() -> nn.Module:
    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.kept = {"input": x, "mean": [x.mean()]}
            return x.tanh()

    return Patches(lambda self, x: self.layer(x), layer=Layer())


@twin(labels=patches)
def plain_running_tensor_updated_in_place() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.running.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
        return x / (1 + self.running.abs()[:, None, None])

    return Patches(forward, running=torch.zeros(WIDTH))


@twin(labels=patches)
def plain_running_tensor_replaced() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.running = 0.9 * self.running + 0.1 * x.detach().mean((0, 2, 3))
        return x / (1 + self.running.abs()[:, None, None])

    return Patches(forward, running=torch.zeros(WIDTH))


@twin(labels=patches)
def buffer_replaced_in_forward() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.running = torch.lerp(self.running, x.detach().mean((0, 2, 3)), 0.1)
        return x * 2

    model = Patches(forward)
    model.register_buffer("running", torch.zeros(WIDTH))
    return model


@twin(labels=patches)
def cache_of_positions() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        if self.positions is None or self.positions.shape[-2:] != x.shape[-2:]:
            rows, columns = torch.meshgrid(
                torch.arange(x.shape[2]), torch.arange(x.shape[3]), indexing="ij"
            )
            self.positions = (rows + columns).float().sin()
        return x + self.positions

    return Patches(forward, positions=None)


@twin(labels=patches)
def moving_average_of_parameters() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            for mean, parameter in zip(self.means, self.layer.parameters(), strict=True):
                mean.lerp_(parameter, 0.5)
        return self.layer(x) + F.conv2d(x, self.means[0], self.means[1])

    layer = nn.Conv2d(WIDTH, WIDTH, 1)
    means = [torch.zeros_like(parameter) for parameter in layer.parameters()]
    return Patches(forward, layer=layer, means=means)


@twin(labels=prior)
def moving_average_of_activations() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        mean = x.detach().mean(0)
        self.average = mean if self.average is None else self.average * 0.9 + mean * 0.1
        return x * (1 + self.average.abs())

    return Patches(forward, average=None)


@twin(calls=4, labels=prior)
def memory_queue() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = F.normalize(x.mean((2, 3)), dim=1)
        start = self.pointer
        self.queue[start : start + x.shape[0]] = x.detach()
        self.pointer = (start + x.shape[0]) % len(self.queue)
        return x

    return Patches(forward, queue=torch.zeros(6, WIDTH), pointer=0)


@twin(calls=4, labels=prior)
def memory_queue_in_buffers() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = F.normalize(x.mean((2, 3)), dim=1)
        start = int(self.pointer)
        with torch.no_grad():
            self.queue[:, start : start + x.shape[0]] = x.T
            self.pointer[0] = (start + x.shape[0]) % self.queue.shape[1]
        return x * 2

    model = Patches(forward)
    model.register_buffer("queue", torch.zeros(WIDTH, 6))
    model.register_buffer("pointer", torch.zeros(1, dtype=torch.long))
    return model


@twin(calls=4, labels=patches)
def last_activations_in_a_deque() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.last.append(x.detach().clone())
        return x * len(self.last)

    return Patches(forward, last=deque(maxlen=2))


@twin(labels=patches)
def view_of_an_activation_kept() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x * 2
        self.view = x[:, :1]
        return x.relu()

    return Patches(forward)


@twin(labels=patches)
def activation_kept_then_overwritten() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.detach() * 2
        self.kept = x
        return x.relu_()

    return Patches(forward)


@twin(labels=tokens, loss=lambda model, out: out.sum() + model.attention.square().sum())
def attention_map_kept() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.flatten(2).mT
        self.attention = (x @ x.mT).softmax(-1)
        return x.sigmoid()

    return Patches(forward)


@twin(labels=patches)
def statistics_of_a_hook() -> nn.Module:
    model = Patches(lambda self, x: self.act(x), act=nn.GELU(), statistics={})

    def hook(module: Any, inputs: Any, output: Tensor) -> None:
        model.statistics.setdefault("mean", []).append(output.detach().mean((0, 2, 3)))
        model.statistics["input"] = inputs[0]

    model.act.register_forward_hook(hook)
    return model


@twin(labels=patches)
def loss_added_to_a_list_of_the_outside() -> nn.Module:
    losses: list[Tensor] = []
    return Patches(lambda self, x: [losses.append(x.mean()), x][1])


@twin(labels=patches, inputs=constant_images)
def input_kept() -> nn.Module:
    class Keeps(Patches):
        def forward(self, x: Tensor) -> Tensor:
            self.image = x
            return super().forward(x)

    return Keeps(lambda self, x: x)


@twin(labels=patches)
def gradients_penalized_through_what_was_kept() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        before, self.before = self.before, x.detach()
        return x if before is None else x + 0.1 * (x - before).abs()

    return Patches(forward, before=None)


@twin(labels=lambda seen: patches(seen))
def weights_standardized_and_cached() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        weight = self.layer.weight
        self.standard = (weight - weight.mean()) / weight.std()
        return F.conv2d(x, self.standard)

    return Patches(forward, layer=nn.Conv2d(WIDTH, 5, 1))


@twin(labels=prior)
def codebook_updated_by_averages() -> nn.Module:
    """As in VQ-VAE: the nearest entries follow the features."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        with torch.no_grad():
            nearest = torch.cdist(x, self.codes).argmin(1)
            self.codes.index_add_(0, nearest, 0.1 * (x - self.codes[nearest]))
        return x

    return Patches(forward, codes=torch.randn(5, WIDTH))


def _dropped(model: Any, index: int) -> None:
    model.kept = None


@twin(labels=patches, change=_dropped)
def what_was_kept_is_dropped() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.kept = x
        return x.relu()

    return Patches(forward, kept=None)


def _seen_kept(seen: Seen) -> Tensor:
    return patches(seen)


@twin(labels=_seen_kept, loss=lambda model, out: out.sum() + model.kept.sum())
def kept_and_returned() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.kept = x.relu()
        return self.kept

    return Patches(forward)
