"""What changes between calls, and must be seen."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from enum import Enum
from types import MethodType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.true_to_model.case import WIDTH, Patches, Seen, patches, prior, twin

FACTOR = 1.0
TABLE: dict[str, Any] = {}


def _pooled(seen: Seen) -> Tensor:
    """Pooling with the size that the model says."""
    return F.avg_pool2d(patches(seen), seen.model.size)


def _size(model: Any, index: int) -> None:
    model.size = 1 + index


@twin(change=_size, labels=_pooled)
def number_changes() -> nn.Module:
    return Patches(lambda self, x: F.avg_pool2d(x, self.size), size=1)


def _stride(model: Any, index: int) -> None:
    model.layer.stride = (index, 3 - index)


@twin(change=_stride, labels=lambda seen: patches(seen)[..., ::1, ::1][_strided(seen)])
def stride_tuple_changes() -> nn.Module:
    return Patches(lambda self, x: self.layer(x), layer=nn.Conv2d(WIDTH, WIDTH, 1))


def _strided(seen: Seen) -> tuple[Any, ...]:
    rows, columns = seen.model.layer.stride
    return (..., slice(None, None, rows), slice(None, None, columns))


def _padding(model: Any, index: int) -> None:
    model.layer.padding = (index, 0)


@twin(change=_padding)
def padding_of_a_layer_changes() -> nn.Module:
    return Patches(lambda self, x: self.layer(x), layer=nn.Conv2d(WIDTH, 3, 3))


def _flips(model: Any, index: int) -> None:
    model.dims.append(2) if index == 1 else model.dims.pop(0)


@twin(change=_flips, labels=lambda seen: patches(seen).flip(seen.model.dims))
def list_edited_in_place() -> nn.Module:
    return Patches(lambda self, x: x.flip(self.dims), dims=[3])


def _nested(model: Any, index: int) -> None:
    model.settings["flip"]["dims"][0] = 2 if index == 1 else 3
    model.settings.setdefault("scale", {})[index] = 2.0 * index


@twin(change=_nested, labels=lambda seen: patches(seen).flip(seen.model.settings["flip"]["dims"]))
def dict_edited_nested() -> nn.Module:
    return Patches(
        lambda self, x: (
            x.flip(self.settings["flip"]["dims"]) * sum(self.settings["scale"].values())
        ),
        settings={"flip": {"dims": [3]}, "scale": {0: 1.0}},
    )


class Side(Enum):
    ROWS = 2
    COLUMNS = 3


def _side(model: Any, index: int) -> None:
    model.side = Side.ROWS if index == 1 else Side.COLUMNS


@twin(change=_side, labels=lambda seen: patches(seen).flip(seen.model.side.value))
def enumeration_changes() -> nn.Module:
    return Patches(lambda self, x: x.flip(self.side.value), side=Side.COLUMNS)


def _none(model: Any, index: int) -> None:
    model.layer = None if index == 1 else nn.AvgPool2d(2)


@twin(change=_none, labels=lambda seen: F.avg_pool2d(patches(seen), 2 if seen.model.layer else 1))
def module_becomes_none_and_comes_back() -> nn.Module:
    return Patches(
        lambda self, x: x if self.layer is None else self.layer(x), layer=nn.AvgPool2d(2)
    )


def _attribute_none(model: Any, index: int) -> None:
    model.flip = (2,) if index == 1 else None


@twin(
    change=_attribute_none,
    labels=lambda seen: patches(seen).flip(seen.model.flip) if seen.model.flip else patches(seen),
)
def attribute_none_then_a_value() -> nn.Module:
    return Patches(lambda self, x: x.flip(self.flip) if self.flip else x, flip=None)


@dataclass
class Settings:
    dims: tuple[int, ...] = (3,)
    more: list[float] = field(default_factory=lambda: [1.0])


def _settings(model: Any, index: int) -> None:
    model.settings.dims = (2,)
    model.settings.more.append(0.5 + index)


@twin(change=_settings, labels=lambda seen: patches(seen).flip(seen.model.settings.dims))
def dataclass_edited() -> nn.Module:
    return Patches(
        lambda self, x: x.flip(self.settings.dims) * sum(self.settings.more), settings=Settings()
    )


def _namespace(model: Any, index: int) -> None:
    model.settings.inner.dim = 2
    model.settings.scale = float(index)


@twin(change=_namespace, labels=lambda seen: patches(seen).flip(seen.model.settings.inner.dim))
def namespace_edited_nested() -> nn.Module:
    settings = SimpleNamespace(inner=SimpleNamespace(dim=3), scale=3.0)
    return Patches(
        lambda self, x: x.flip(self.settings.inner.dim) * self.settings.scale, settings=settings
    )


def _slots(model: Any, index: int) -> None:
    model.settings.dim = 2


class Slots:
    __slots__ = ("dim",)

    def __init__(self, dim: int) -> None:
        self.dim = dim


@twin(change=_slots, labels=lambda seen: patches(seen).flip(seen.model.settings.dim))
def object_with_slots_edited() -> nn.Module:
    return Patches(lambda self, x: x.flip(self.settings.dim), settings=Slots(3))


def _tensor_in_place(model: Any, index: int) -> None:
    model.scale.mul_(2)


@twin(change=_tensor_in_place, labels=patches)
def plain_tensor_changed_in_place() -> nn.Module:
    return Patches(lambda self, x: x * self.scale, scale=torch.randn(WIDTH, 1, 1))


def _tensor_replaced(model: Any, index: int) -> None:
    model.scale = torch.full((WIDTH, 1, 1), 0.5 + index)


@twin(change=_tensor_replaced, labels=patches)
def plain_tensor_replaced() -> nn.Module:
    return Patches(lambda self, x: x * self.scale, scale=torch.randn(WIDTH, 1, 1))


def _order_replaced(model: Any, index: int) -> None:
    model.order = model.order.roll(index)


@twin(change=_order_replaced, labels=lambda seen: patches(seen)[..., seen.model.order])
def plain_tensor_of_indices_replaced() -> nn.Module:
    return Patches(lambda self, x: x[..., self.order], order=torch.tensor([6, 0, 3, 2, 5, 1, 4]))


def _mixing(model: Any, index: int) -> None:
    model.matrix[:, index] += 5


@twin(change=_mixing)
def plain_mixing_matrix_changed_in_place() -> nn.Module:
    return Patches(lambda self, x: x @ self.matrix, matrix=torch.rand(7, 7))


def _in_list(model: Any, index: int) -> None:
    model.scales[0] = model.scales[0] + index


@twin(change=_in_list, labels=patches)
def tensor_in_a_list_replaced() -> nn.Module:
    return Patches(lambda self, x: x * self.scales[0], scales=[torch.ones(WIDTH, 1, 1)])


def _activation(model: Any, index: int) -> None:
    model.act = (torch.tanh, F.gelu)[index - 1]


@twin(change=_activation, labels=patches)
def activation_function_changes() -> nn.Module:
    return Patches(lambda self, x: self.act(x), act=torch.relu)


def _other_lambda(model: Any, index: int) -> None:
    model.act = lambda x: x.flip(index + 1)


@twin(change=_other_lambda, labels=lambda seen: seen.model.act(patches(seen)))
def lambda_with_another_closure() -> nn.Module:
    return Patches(lambda self, x: self.act(x), act=lambda x: x.flip(1 + 2))


def _partial(model: Any, index: int) -> None:
    model.act = functools.partial(F.leaky_relu, negative_slope=0.1 * index)


@twin(change=_partial, labels=patches)
def partial_changes() -> nn.Module:
    return Patches(
        lambda self, x: self.act(x), act=functools.partial(F.leaky_relu, negative_slope=0.9)
    )


def _closure(model: Any, index: int) -> None:
    model.set_dim(2)


@twin(change=_closure, labels=lambda seen: seen.model.function(seen.model, patches(seen)))
def variable_of_a_closure_changes() -> nn.Module:
    dim = 3

    def set_dim(value: int) -> None:
        nonlocal dim
        dim = value

    return Patches(lambda self, x: x.flip(dim), set_dim=set_dim)


def _list_of_modules(model: Any, index: int) -> None:
    model.layers.append(nn.AvgPool2d((index, 1)))


@twin(change=_list_of_modules, labels=lambda seen: _through(seen.model.layers, patches(seen)))
def plain_list_of_modules_grows() -> nn.Module:
    return Patches(lambda self, x: _through(self.layers, x), layers=[nn.AvgPool2d(2)])


def _through(layers: Any, x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _inside_list(model: Any, index: int) -> None:
    model.layers[0].kernel_size = (index, 2)
    model.layers[0].stride = (index, 2)


@twin(change=_inside_list, labels=lambda seen: _through(seen.model.layers, patches(seen)))
def module_in_a_plain_list_edited() -> nn.Module:
    return Patches(lambda self, x: _through(self.layers, x), layers=[nn.AvgPool2d(2, 2)])


def _forward_patched(model: Any, index: int) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.stem(x).flip(index + 1)

    model.forward = MethodType(forward, model)


@twin(change=_forward_patched)
def forward_patched_on_the_instance() -> nn.Module:
    return Patches(lambda self, x: x)


def _inner_forward_patched(model: Any, index: int) -> None:
    layer = model.layer
    layer.forward = lambda x: F.avg_pool2d(x, index + 1)


@twin(change=_inner_forward_patched)
def forward_of_a_layer_patched() -> nn.Module:
    return Patches(lambda self, x: self.layer(x), layer=nn.AvgPool2d(1))


def _class_patched(model: Any, index: int) -> None:
    type(model.layer).forward = lambda self, x: F.avg_pool2d(x, index + 1)


@twin(change=_class_patched)
def forward_patched_on_the_class() -> nn.Module:
    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    return Patches(lambda self, x: self.layer(x), layer=Layer())


def _class_changed(model: Any, index: int) -> None:
    model.layer.__class__ = (nn.Softsign, nn.Tanh)[index - 1]


@twin(change=_class_changed, labels=patches)
def class_of_a_layer_patched() -> nn.Module:
    return Patches(lambda self, x: self.layer(x), layer=nn.Sigmoid())


def _class_attribute(model: Any, index: int) -> None:
    type(model.layer).dim = 2


@twin(change=_class_attribute, labels=lambda seen: patches(seen).flip(seen.model.layer.dim))
def attribute_of_the_class_changes() -> nn.Module:
    class Layer(nn.Module):
        dim = 3

        def forward(self, x: Tensor) -> Tensor:
            return x.flip(self.dim)

    return Patches(lambda self, x: self.layer(x), layer=Layer())


def _global(model: Any, index: int) -> None:
    global FACTOR
    FACTOR = 1.0 + index
    TABLE["dim"] = 2 if index == 1 else 3


@twin(change=_global, labels=lambda seen: patches(seen).flip(TABLE.get("dim", 3)))
def globals_are_read() -> nn.Module:
    global FACTOR
    FACTOR = 1.0
    TABLE.clear()
    return Patches(lambda self, x: x.flip(TABLE.get("dim", 3)) * FACTOR)


def _child(model: Any, index: int) -> None:
    model.layers[1] = nn.AvgPool2d((index, 2))


@twin(change=_child, labels=lambda seen: model_pooled(seen))
def child_of_a_sequential_replaced() -> nn.Module:
    layers = nn.Sequential(nn.ReLU(), nn.AvgPool2d(2))
    return Patches(lambda self, x: self.layers(x), layers=layers)


def model_pooled(seen: Seen) -> Tensor:
    return seen.model.layers[1](patches(seen))


def _module_list(model: Any, index: int) -> None:
    if index == 1:
        model.layers.append(nn.AvgPool2d(2))
    else:
        del model.layers[0]


@twin(change=_module_list, labels=lambda seen: _through(seen.model.layers, patches(seen)))
def module_list_grows_and_shrinks() -> nn.Module:
    return Patches(
        lambda self, x: _through(self.layers, x), layers=nn.ModuleList([nn.AvgPool2d((1, 2))])
    )


def _training(model: Any, index: int) -> None:
    model.train(index != 1)
    model.drop.train(index == 1)


@twin(change=_training, labels=patches)
def modes_of_modules_change() -> nn.Module:
    return Patches(
        lambda self, x: self.drop(self.norm(x)), drop=nn.Dropout(0.3), norm=nn.BatchNorm2d(WIDTH)
    )


def _rate(model: Any, index: int) -> None:
    model.drop.p = 0.3 * index


@twin(change=_rate, labels=patches)
def drop_rate_changes() -> nn.Module:
    return Patches(lambda self, x: self.drop(x), drop=nn.Dropout(0.1))


def _momentum(model: Any, index: int) -> None:
    model.norm.momentum = (None, 0.7)[index - 1]
    model.norm.eps = 0.1 * index


@twin(change=_momentum, labels=patches)
def momentum_and_epsilon_change() -> nn.Module:
    return Patches(lambda self, x: self.norm(x), norm=nn.BatchNorm2d(WIDTH))


def _property(model: Any, index: int) -> None:
    model.hidden["dim"] = 2


class WithProperty(Patches):
    @property
    def dim(self) -> int:
        return self.hidden["dim"]


@twin(change=_property, labels=lambda seen: patches(seen).flip(seen.model.dim))
def property_reads_what_changes() -> nn.Module:
    return WithProperty(lambda self, x: x.flip(self.dim), hidden={"dim": 3})


class WithFallback(Patches):
    def __getattr__(self, name: str) -> Any:
        if name == "dims":
            return self.hidden[0]
        return super().__getattr__(name)


def _fallback(model: Any, index: int) -> None:
    model.hidden[0] = (2,)


@twin(change=_fallback, labels=lambda seen: patches(seen).flip(seen.model.dims))
def getattr_reads_what_changes() -> nn.Module:
    return WithFallback(lambda self, x: x.flip(self.dims), hidden=[(3,)])


@twin(
    keywords=lambda index: {"mode": ("mean", "max", None)[index]},
    labels=lambda seen: patches(seen) if seen.outputs.dim() == 4 else prior(seen),
)
def keyword_chooses_the_branch() -> nn.Module:
    class Pooled(Patches):
        def forward(self, x: Tensor, mode: str | None = None) -> Tensor:
            x = self.stem(x)
            if mode == "mean":
                return x.mean((2, 3))
            return x.flatten(2).mean(2) * 2 if mode == "max" else x

    return Pooled(lambda self, x: x)


def _cached(model: Any, index: int) -> None:
    model.grid.cache_clear()


@twin(change=_cached, labels=patches)
def helper_with_a_cache() -> nn.Module:
    @functools.cache
    def grid(rows: int, columns: int) -> Tensor:
        return torch.rand(rows, columns)

    return Patches(lambda self, x: x + self.grid(*x.shape[2:]), grid=grid)


def _hyperparameters(model: Any, index: int) -> None:
    model.weights[f"scale {index}"] = index


@twin(change=_hyperparameters, labels=patches)
def keys_of_a_dict_and_members_of_a_set() -> nn.Module:
    def scaled(self: Any, x: Tensor) -> Tensor:
        self.seen.add(len(self.weights))
        return x * len(self.weights) + max(self.seen)

    return Patches(scaled, weights={}, seen=set())
