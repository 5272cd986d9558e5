"""All that a model, and a training step of it, leave behind: to be compared bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Step:
    """All that a training step leaves behind."""

    tensors: dict[str, Tensor | None]
    random_state: Tensor


def step(
    model: nn.Module, forward: Callable[[Tensor], Tensor], images: Tensor, seed: int = 0
) -> Step:
    """One forward and one backward pass of ``forward``, which runs ``model``."""
    images = images.clone().requires_grad_()
    model.zero_grad(set_to_none=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        outputs = forward(images)
        random_state = torch.get_rng_state()
    outputs.float().square().sum().backward()
    tensors = {"outputs": outputs.detach(), "gradient of images": images.grad}
    for name, parameter in model.named_parameters():
        tensors[f"gradient of {name}"] = parameter.grad
    for name, buffer in model.named_buffers():
        tensors[name] = buffer.clone()
    return Step(tensors, random_state)


def same(found: Step, expected: Step) -> None:
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        other = found.tensors[name]
        assert (tensor is None) == (other is None), name
        if tensor is not None and other is not None:
            assert tensor.dtype == other.dtype, name
            assert torch.equal(tensor, other), name
    assert torch.equal(found.random_state, expected.random_state)


class Tiny(nn.Module):
    """A small model with dropout and a batch norm: images (B, 3, 6, 10) to logits (B, 7)."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.stem = nn.Conv2d(3, 5, 2, 2)
        self.mixing = nn.Conv2d(5, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.dropout = nn.Dropout(0.4)
        self.head = nn.Linear(5, 7)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def features(self, images: Tensor) -> Tensor:
        return self.dropout(self.norm(self.mixing(self.stem(images))).relu())

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((2, 3)))


def inputs(
    *sizes: int, batch: int = 3, channels: int = 3, sources: int = 2
) -> tuple[Tensor, Tensor]:
    """Images (B, C, *sizes) and labels (B, K, *sizes)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(batch, sources, *sizes, generator=generator).square()
    images = torch.randn(batch, channels, *sizes, generator=generator)
    return images, labels / labels.sum(1, keepdim=True)


IMAGES, LABELS = inputs(6, 10)


def snapshot(model: nn.Module) -> dict[str, Any]:
    """All that makes a model what it is: values, identities, types, modes and attributes."""
    found: dict[str, Any] = {"random state": torch.get_rng_state()}
    for path, module in model.named_modules():
        found[f"{path} is"] = (id(module), type(module), module.training)
        for name, value in vars(module).items():
            found[f"{path}.{name}"] = _known(name, value)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[f"{name} value"] = (id(tensor), tensor.dtype, tensor.requires_grad, tensor.grad)
        found[f"{name} data"] = tensor.detach().clone()
    return found


TORCHS_OWN = {name for name, value in vars(nn.Module()).items() if isinstance(value, dict)}


def _known(name: str, value: Any) -> Any:
    if name in TORCHS_OWN:  # parameters, parts, hooks
        return id(value), list(value)
    plain = isinstance(value, bool | int | float | str | tuple | list | dict)
    return copy.deepcopy(value) if plain else id(value)


def unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, after[name]), name
        else:
            assert value == after[name], name


class Function(nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)
