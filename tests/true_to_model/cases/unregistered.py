"""Parameters and layers that are not registered under the model."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from tests.true_to_model.case import WIDTH, Patches, patches, prior, tokens, twin


def _parameter(*sizes: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*sizes))


@twin(labels=patches)
def parameters_in_a_plain_list() -> nn.Module:
    scales = [_parameter(WIDTH, 1, 1) for _ in range(3)]

    def scaled(self: Any, x: Tensor) -> Tensor:
        for scale in self.scales:
            x = x * scale
        return x

    return Patches(scaled, scales=scales)


@twin(labels=patches)
def parameters_in_nested_dicts() -> nn.Module:
    parts = {"a": {"scale": _parameter(WIDTH, 1, 1)}, "b": [(_parameter(1),)]}
    return Patches(
        lambda self, x: x * self.parts["a"]["scale"] + self.parts["b"][0][0], parts=parts
    )


@twin(labels=patches)
def parameter_in_a_closure() -> nn.Module:
    scale = _parameter(WIDTH, 1, 1)
    return Patches(lambda self, x: x * scale)


@twin(labels=patches)
def parameter_as_default_argument() -> nn.Module:
    def scaled(self: Any, x: Tensor, scale: Tensor = _parameter(WIDTH, 1, 1)) -> Tensor:  # noqa: B008
        return x * scale

    return Patches(scaled)


@twin(labels=patches)
def parameter_of_another_module() -> nn.Module:
    other = nn.Conv2d(WIDTH, WIDTH, 1)
    return Patches(lambda self, x: other(x))


@twin(labels=patches)
def modules_in_a_plain_list() -> nn.Module:
    layers = [nn.Conv2d(WIDTH, WIDTH, 1), nn.BatchNorm2d(WIDTH)]
    return Patches(lambda self, x: self.layers[1](self.layers[0](x)), layers=layers)


@twin(labels=patches)
def parameter_list() -> nn.Module:
    scales = nn.ParameterList([_parameter(WIDTH, 1, 1), torch.ones(1)])
    return Patches(lambda self, x: x * self.scales[0] + self.scales[1], scales=scales)


@twin(labels=patches)
def parameter_dict() -> nn.Module:
    parts = nn.ParameterDict({"scale": _parameter(WIDTH, 1, 1)})
    return Patches(lambda self, x: x * self.parts["scale"], parts=parts)


@twin(labels=patches)
def parameter_of_an_object() -> nn.Module:
    class Scale:
        def __init__(self) -> None:
            self.value = _parameter(WIDTH, 1, 1)

        def __call__(self, x: Tensor) -> Tensor:
            return x * self.value

    return Patches(lambda self, x: self.scale(x), scale=Scale())


@twin(labels=patches)
def bound_method_of_another_module() -> nn.Module:
    return Patches(lambda self, x: self.call(x), call=nn.Conv2d(WIDTH, WIDTH, 1).forward)


@twin(labels=patches)
def module_in_a_partial() -> nn.Module:
    call = functools.partial(nn.Conv2d(WIDTH, WIDTH, 1))
    return Patches(lambda self, x: self.call(x), call=call)


@twin(labels=tokens)
def tied_weights() -> nn.Module:
    first, second = nn.Linear(WIDTH, 7), nn.Linear(WIDTH, 7)
    second.weight = first.weight
    return Patches(
        lambda self, x: self.first(x.flatten(2).mT) + self.second(x.flatten(2).mT),
        first=first,
        second=second,
    )


@twin(labels=prior)
def transposed_tied_weight() -> nn.Module:
    layer = nn.Linear(WIDTH, 7)
    return Patches(lambda self, x: layer(x.mean((2, 3))) @ self.layer.weight, layer=layer)


@twin(labels=patches)
def same_module_under_two_names_and_twice() -> nn.Module:
    layer = nn.Conv2d(WIDTH, WIDTH, 1)
    return Patches(lambda self, x: self.b(self.a(self.a(x))), a=layer, b=layer)


def _frozen(model: Any, index: int) -> None:
    model.stem.weight.requires_grad_(index % 2 == 0)


@twin(labels=patches, change=_frozen)
def parameter_frozen_and_thawed() -> nn.Module:
    return Patches(lambda self, x: x.relu())


def _another_weight(model: Any, index: int) -> None:
    model.stem.weight = _parameter(*model.stem.weight.shape)


@twin(labels=patches, change=_another_weight)
def parameter_replaced() -> nn.Module:
    return Patches(lambda self, x: x.relu())


def _data(model: Any, index: int) -> None:
    model.stem.weight.data = torch.full_like(model.stem.weight, 0.1 * index)


@twin(labels=patches, change=_data)
def data_of_a_parameter_replaced() -> nn.Module:
    return Patches(lambda self, x: x.relu())


def _optimized(model: Any, index: int) -> None:
    model.optimizer.step()
    model.optimizer.zero_grad()


@twin(labels=patches, change=_optimized)
def optimizer_steps_between() -> nn.Module:
    model = Patches(lambda self, x: x.relu())
    model.optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    return model


def _double(model: Any, index: int) -> None:
    model.double() if index == 1 else model.float()


@twin(labels=patches, change=_double, inputs=lambda index: (_typed(index),))
def model_changes_its_dtype() -> nn.Module:
    return Patches(lambda self, x: self.norm(x), norm=nn.BatchNorm2d(WIDTH))


def _typed(index: int) -> Tensor:
    from tests.true_to_model.case import pictures

    return pictures(index).to(torch.float64 if index == 1 else torch.float32)


@twin(labels=patches)
def non_persistent_buffer_written() -> nn.Module:
    model = Patches(lambda self, x: x * self.calls.add_(1))
    model.register_buffer("calls", torch.zeros(()), persistent=False)
    return model


def _another_buffer(model: Any, index: int) -> None:
    model.scale = torch.full((WIDTH, 1, 1), float(index))


@twin(labels=patches, change=_another_buffer)
def buffer_of_another_shape() -> nn.Module:
    model = Patches(lambda self, x: x * self.scale)
    model.register_buffer("scale", torch.ones(1))
    return model
