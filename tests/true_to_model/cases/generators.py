"""Draws of all generators, counters, first calls and schedules."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.true_to_model.case import WIDTH, Patches, Seen, patches, prior, tokens, twin


@twin(calls=4, labels=patches)
def drop_path_with_pythons_random() -> nn.Module:
    def path(self: Any, x: Tensor) -> Tensor:
        return x if random.random() < 0.5 else x + self.layer(x)

    return Patches(path, layer=nn.Conv2d(WIDTH, WIDTH, 1))


@twin(calls=4, labels=lambda seen: patches(seen).flip(seen.model.dim))
def choice_with_pythons_random() -> nn.Module:
    def flipped(self: Any, x: Tensor) -> Tensor:
        self.dim = random.choice([2, 3])
        return x.flip(self.dim)

    return Patches(flipped)


@twin(calls=4, labels=patches)
def own_random_object() -> nn.Module:
    return Patches(lambda self, x: x * self.random.gauss(0, 1), random=random.Random(3))


@twin(labels=lambda seen: tokens(seen)[:, seen.model.order])
def permutation_with_numpy() -> nn.Module:
    def permuted(self: Any, x: Tensor) -> Tensor:
        self.order = np.random.permutation(x[0, 0].numel()).tolist()
        return x.flatten(2).mT[:, self.order]

    return Patches(permuted)


@twin(labels=lambda seen: tokens(seen)[:, seen.model.order])
def permutation_with_torch() -> nn.Module:
    def permuted(self: Any, x: Tensor) -> Tensor:
        self.order = torch.randperm(x[0, 0].numel())
        return x.flatten(2).mT[:, self.order]

    return Patches(permuted)


@twin(labels=patches)
def numpy_generator_object() -> nn.Module:
    return Patches(
        lambda self, x: x + torch.from_numpy(self.random.normal(size=(WIDTH, 1, 1))).float(),
        random=np.random.default_rng(5),
    )


@twin(labels=patches)
def numpy_legacy_state_object() -> nn.Module:
    return Patches(lambda self, x: x * self.random.rand(), random=np.random.RandomState(5))


@twin(labels=patches)
def numpy_mask_of_channels() -> nn.Module:
    def masked(self: Any, x: Tensor) -> Tensor:
        keep = np.random.rand(x.shape[1], 1, 1) < 0.7
        return x * torch.from_numpy(keep)

    return Patches(masked)


@twin(labels=patches)
def torch_generator_object() -> nn.Module:
    generator = torch.Generator().manual_seed(11)
    return Patches(
        lambda self, x: x + torch.randn(x.shape, generator=self.generator), generator=generator
    )


@twin(labels=patches)
def noise_of_every_kind() -> nn.Module:
    def noisy(self: Any, x: Tensor) -> Tensor:
        x = x + torch.randn_like(x)
        x = x * torch.empty_like(x).bernoulli_(0.8)
        x = x + torch.empty(x.shape).uniform_(-1, 1)
        return F.rrelu(x, training=True) * torch.rand(())

    return Patches(noisy)


@twin(labels=patches)
def dropout_of_every_kind() -> nn.Module:
    layers = nn.Sequential(
        nn.Dropout(0.2), nn.Dropout2d(0.2), nn.AlphaDropout(0.2), nn.FeatureAlphaDropout(0.1)
    )
    return Patches(lambda self, x: F.dropout(self.layers(x), 0.1, inplace=True), layers=layers)


@twin(labels=patches)
def random_state_forked_inside() -> nn.Module:
    def forked(self: Any, x: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            noise = torch.randn_like(x)
        return x + noise + torch.randn(())

    return Patches(forked)


@twin(labels=patches)
def seeded_inside() -> nn.Module:
    def seeded(self: Any, x: Tensor) -> Tensor:
        torch.manual_seed(self.seed)
        random.seed(self.seed)
        np.random.seed(self.seed)
        self.seed += 1
        return x * torch.rand(()) * random.random() * np.random.rand()

    return Patches(seeded, seed=1)


@twin(labels=patches)
def temperature_drawn_anew() -> nn.Module:
    return Patches(lambda self, x: x / (0.5 + random.betavariate(2, 2)) ** np.random.gamma(2.0))


@twin(labels=patches)
def gumbel_softmax_of_channels() -> nn.Module:
    return Patches(lambda self, x: F.gumbel_softmax(x, tau=0.7, dim=1))


@twin(calls=4, labels=lambda seen: patches(seen).flip(2 + (seen.model.step - 1) % 2))
def counter_chooses_the_branch() -> nn.Module:
    def stepped(self: Any, x: Tensor) -> Tensor:
        x = x.flip(2 + self.step % 2)
        self.step += 1
        return x

    return Patches(stepped, step=0)


@twin(labels=patches)
def first_call_initializes() -> nn.Module:
    """As in ActNorm: the first batch sets the parameters."""

    def normed(self: Any, x: Tensor) -> Tensor:
        if not self.initialized:
            with torch.no_grad():
                self.scale.copy_(1 / (x.std((0, 2, 3), keepdim=True) + 1e-3))
            self.initialized = True
        return x * self.scale

    return Patches(normed, initialized=False, scale=nn.Parameter(torch.ones(1, WIDTH, 1, 1)))


@twin(labels=patches)
def first_call_flag_in_a_buffer() -> nn.Module:
    def normed(self: Any, x: Tensor) -> Tensor:
        if self.initialized.item() == 0:
            self.scale.data.mul_(3)
            self.initialized.fill_(1)
        return x * self.scale

    model = Patches(normed, scale=nn.Parameter(torch.ones(1, WIDTH, 1, 1)))
    model.register_buffer("initialized", torch.tensor(0))
    return model


@twin(calls=4)
def annealed_temperature_of_attention() -> nn.Module:
    def attended(self: Any, x: Tensor) -> Tensor:
        self.temperature = max(0.1, self.temperature * 0.5)
        x = x.flatten(2).mT
        return (x @ x.mT / self.temperature).softmax(-1) @ x

    return Patches(attended, temperature=4.0)


@twin(labels=patches)
def annealed_temperature_in_a_buffer() -> nn.Module:
    def scaled(self: Any, x: Tensor) -> Tensor:
        self.temperature.mul_(0.5)
        return (x / self.temperature).sigmoid()

    model = Patches(scaled)
    model.register_buffer("temperature", torch.tensor(4.0))
    return model


@twin(calls=4, labels=lambda seen: patches(seen).flip(seen.model.last))
def schedule_from_an_iterator() -> nn.Module:
    def scheduled(self: Any, x: Tensor) -> Tensor:
        self.last = next(self.dims)
        return x.flip(self.last)

    model = Patches(scaled_never)
    model.function = scheduled
    model.dims = iter([2, 3, 3, 2, 2])
    return model


def scaled_never(self: Any, x: Tensor) -> Tensor:
    raise AssertionError("replaced")


@twin(calls=4, labels=patches)
def schedule_from_a_generator() -> nn.Module:
    def cosine() -> Any:
        for step in itertools.count():
            yield math.cos(step)

    return Patches(lambda self, x: x * next(self.factors), factors=cosine())


@twin(calls=4, labels=patches)
def schedule_from_itertools() -> nn.Module:
    return Patches(lambda self, x: x * next(self.steps), steps=itertools.count(1))


@twin(calls=4, labels=lambda seen: prior(seen) if seen.outputs.dim() == 2 else patches(seen))
def outputs_alternate_in_shape() -> nn.Module:
    def alternating(self: Any, x: Tensor) -> Tensor:
        self.step += 1
        return x.mean((2, 3)) if self.step % 2 else x

    return Patches(alternating, step=0)


@twin(calls=3, labels=patches)
def stochastic_depth_of_several_layers() -> nn.Module:
    def deep(self: Any, x: Tensor) -> Tensor:
        for layer in self.layers:
            if self.training and random.random() < 0.5:
                continue
            x = x + layer(x)
        return x

    layers = nn.ModuleList([nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(4)])
    return Patches(deep, layers=layers)


def _size_of_call(index: int) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(index)
    sizes = ((10, 14), (6, 22), (10, 14), (10, 14))[index]
    return (torch.randn(3 if index == 3 else 2, 3, *sizes, generator=generator),)


@twin(calls=4, inputs=_size_of_call, labels=patches)
def sizes_change_between_calls() -> nn.Module:
    def positioned(self: Any, x: Tensor) -> Tensor:
        key = tuple(x.shape[2:])
        if key not in self.grids:
            self.grids[key] = torch.rand(key)
        return x + self.grids[key]

    return Patches(positioned, grids={})


def _seen_batch(seen: Seen) -> Tensor:
    return patches(seen) if seen.model.calls % 2 else patches(seen).flip(3)


@twin(calls=4, labels=_seen_batch)
def calls_counted_by_a_hook() -> nn.Module:
    model = Patches(lambda self, x: x if self.calls % 2 else x.flip(3), calls=0)

    def count(module: Any, inputs: Any) -> None:
        module.calls += 1

    model.register_forward_pre_hook(count)
    return model
