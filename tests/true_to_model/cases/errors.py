"""Errors of the model: they stay its own, and what it did before them stays done."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.true_to_model.case import WIDTH, Patches, patches, pictures, twin


@twin(labels=patches)
def error_in_the_middle_of_a_call() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.step += 1
        x = self.norm(x) * torch.rand(())
        self.kept = x
        if self.step == 2:
            raise ValueError(f"step {self.step}")
        return x

    return Patches(forward, step=0, norm=nn.BatchNorm2d(WIDTH))


@twin(labels=patches)
def error_in_the_first_call() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.step += 1
        if self.step == 1:
            raise KeyError("not yet")
        return x

    return Patches(forward, step=0)


@twin(calls=2)
def error_of_torch_about_shapes() -> nn.Module:
    return Patches(lambda self, x: x @ x)


@twin(calls=2)
def error_about_arguments() -> nn.Module:
    class Two(Patches):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    return Two(lambda self, x: x)


@twin(calls=2, keywords=lambda index: {"unknown": 3})
def error_about_keywords() -> nn.Module:
    class One(Patches):
        def forward(self, x: Tensor) -> Tensor:
            return self.stem(x)

    return One(lambda self, x: x)


@twin(calls=2)
def error_of_a_class_of_the_models() -> nn.Module:
    class Odd(RuntimeError):
        pass

    def forward(self: Any, x: Tensor) -> Tensor:
        raise Odd("odd")

    return Patches(forward)


@twin(labels=patches)
def error_caught_inside() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        try:
            return x @ x
        except RuntimeError as error:
            self.text = type(error).__name__
        return x * 2

    return Patches(forward)


@twin(labels=patches)
def error_in_a_module_caught_inside() -> nn.Module:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x.mul(2)
            raise ValueError

    def forward(self: Any, x: Tensor) -> Tensor:
        try:
            self.layer(x)
        except ValueError:
            x = x * 3
        return self.norm(x)

    return Patches(forward, layer=Failing(), norm=nn.BatchNorm2d(WIDTH))


@twin(labels=patches)
def error_in_a_hook() -> nn.Module:
    model = Patches(lambda self, x: self.act(x), act=nn.ReLU(), calls=0)

    def hook(module: Any, inputs: Any, output: Any) -> None:
        model.calls += 1
        if model.calls == 2:
            raise RuntimeError("hook")

    model.act.register_forward_hook(hook)
    return model


@twin(labels=patches)
def error_in_the_backward_pass() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        def fail(gradient: Tensor) -> None:
            raise RuntimeError("backward")

        x = x.relu()
        x.register_hook(fail)
        return x

    return Patches(forward)


@twin(labels=patches)
def leaf_written_in_place() -> nn.Module:
    return Patches(lambda self, x: x + self.stem.weight.mul_(2).sum())


@twin(labels=patches, loss=lambda model, out: out.sum())
def saved_tensor_overwritten() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = x.sigmoid()
        z = y * 2
        y.mul_(3)
        return z + y

    return Patches(forward)


def _wide(index: int) -> tuple[Any, ...]:
    return (torch.cat([pictures(index)] * (2 if index == 1 else 1), 1),)


@twin(inputs=_wide, labels=patches)
def error_for_one_input_only() -> nn.Module:
    return Patches(lambda self, x: self.norm(x), norm=nn.BatchNorm2d(WIDTH))


@twin(labels=patches)
def warning_given_once() -> nn.Module:
    import warnings

    def forward(self: Any, x: Tensor) -> Tensor:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            warnings.warn("careful", stacklevel=1)
            y = x.relu()
        self.found.append([str(warning.message) for warning in found])
        return y

    return Patches(forward, found=[])
