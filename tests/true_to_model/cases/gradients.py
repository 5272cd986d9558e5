"""Gradients that autograd would not derive: backward passes and hooks of the model's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tests.true_to_model.case import WIDTH, Patches, each, patches, prior, tokens, twin


class StraightThrough(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Reversal(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradient, None


class Swish(Function):
    """It saves what its backward pass needs, and has a gradient that is not the true one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * x.sigmoid()


class SignAndSize(Function):
    """Two outputs, one of which has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        sign, size = x.sign(), x.abs()
        ctx.mark_non_differentiable(sign)
        ctx.save_for_backward(sign)
        return size, sign

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, unused: Tensor) -> Tensor:
        (sign,) = ctx.saved_tensors
        return gradient * sign * 3


class Halved(Function):
    """With `setup_context`, and a matrix that is no parameter of the module."""

    @staticmethod
    def forward(x: Tensor, matrix: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, matrix)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, matrix = ctx.saved_tensors
        return gradient @ matrix / 2, gradient.flatten(0, 1).mT @ x.flatten(0, 1)


class ClampedInPlace(Function):
    """It writes to its input and says so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.clamp_(-1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 0.5


@twin(labels=patches)
def straight_through_rounding() -> nn.Module:
    return Patches(lambda self, x: StraightThrough.apply(x * 3))


@twin(labels=prior)
def straight_through_by_detach() -> nn.Module:
    return Patches(lambda self, x: (x + (x.round() - x).detach()).mean((2, 3)))


@twin(labels=each(prior))
def gradient_reversal_of_one_head() -> nn.Module:
    def heads(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        features = x.mean((2, 3))
        return self.head(features), self.domain(Reversal.apply(features, self.scale))

    return Patches(heads, head=nn.Linear(WIDTH, 3), domain=nn.Linear(WIDTH, 5), scale=0.7)


def _scale(model: Any, index: int) -> None:
    model.scale += 0.5 * index


@twin(labels=patches, change=_scale)
def gradient_reversal_that_is_annealed() -> nn.Module:
    return Patches(lambda self, x: Reversal.apply(x, self.scale), scale=0.1)


@twin(labels=patches)
def function_with_saved_tensors_once_differentiable() -> nn.Module:
    return Patches(lambda self, x: Swish.apply(x))


@twin(labels=each(patches))
def function_with_two_outputs() -> nn.Module:
    return Patches(lambda self, x: SignAndSize.apply(x))


@twin(labels=patches)
def function_whose_outputs_meet_again() -> nn.Module:
    def product(self: Any, x: Tensor) -> Tensor:
        size, sign = SignAndSize.apply(x)
        return self.layer(size) * sign.detach()

    return Patches(product, layer=nn.Conv2d(WIDTH, WIDTH, 1))


@twin(labels=tokens)
def function_with_a_matrix() -> nn.Module:
    return Patches(
        lambda self, x: Halved.apply(x.flatten(2).mT, self.matrix),
        matrix=nn.Parameter(torch.randn(3, WIDTH)),
    )


@twin(labels=patches)
def function_that_writes_in_place() -> nn.Module:
    return Patches(lambda self, x: ClampedInPlace.apply(x * 2))


def _times(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient * factor


@twin(labels=patches)
def tensor_hook_in_forward() -> nn.Module:
    def hooked(self: Any, x: Tensor) -> Tensor:
        x = x.relu()
        if x.requires_grad:
            x.register_hook(_times(-2.0))
        return x

    return Patches(hooked)


@twin(labels=patches)
def tensor_hook_that_keeps_the_gradient() -> nn.Module:
    def hooked(self: Any, x: Tensor) -> Tensor:
        x = x.tanh()
        x.register_hook(lambda gradient: self.gradients.append(gradient.clone()))
        return x

    return Patches(hooked, gradients=[])


@twin(labels=patches)
def gradient_retained() -> nn.Module:
    def retained(self: Any, x: Tensor) -> Tensor:
        self.activation = x.relu()
        self.activation.retain_grad()
        return self.activation * 2

    return Patches(retained)


@twin(labels=patches)
def node_hook_in_forward() -> nn.Module:
    def hooked(self: Any, x: Tensor) -> Tensor:
        x = x.relu()
        x.grad_fn.register_prehook(lambda gradients: (gradients[0] * 5,))
        return x

    return Patches(hooked)


@twin(labels=patches)
def hook_after_accumulation() -> nn.Module:
    model = Patches(lambda self, x: x.relu(), steps=0)

    def count(parameter: Tensor) -> None:
        model.steps += 1
        parameter.grad.mul_(0.5)

    model.stem.weight.register_post_accumulate_grad_hook(count)
    return model


@twin(labels=patches)
def parameter_hook() -> nn.Module:
    model = Patches(lambda self, x: x.relu())
    model.stem.bias.register_hook(_times(3.0))
    return model


@twin(labels=patches)
def full_backward_hook() -> nn.Module:
    model = Patches(lambda self, x: self.layer(x).relu(), layer=nn.Conv2d(WIDTH, WIDTH, 1))
    model.layer.register_full_backward_hook(lambda module, given, got: (given[0] * 2,))
    return model


@twin(labels=patches)
def full_backward_pre_hook() -> nn.Module:
    model = Patches(lambda self, x: self.layer(x).relu(), layer=nn.Conv2d(WIDTH, WIDTH, 1))
    model.layer.register_full_backward_pre_hook(lambda module, given: (given[0] * -3,))
    return model


@twin(labels=patches)
def full_backward_hook_of_the_model() -> nn.Module:
    model = Patches(lambda self, x: x.sigmoid(), seen=[])
    hook = lambda module, given, got: module.seen.append(got[0].sum().item())  # noqa: E731
    model.register_full_backward_hook(hook)
    return model


def _hook(model: Any, index: int) -> None:
    if index == 1:
        hook = lambda module, given, got: (given[0] * 7,)  # noqa: E731
        model.handle = model.layer.register_full_backward_hook(hook)
    else:
        model.handle.remove()
        del model.handle


@twin(labels=patches, change=_hook)
def full_backward_hook_comes_and_goes() -> nn.Module:
    return Patches(lambda self, x: self.layer(x).relu(), layer=nn.Conv2d(WIDTH, WIDTH, 1))


@twin(labels=patches)
def forward_hook_changes_activations() -> nn.Module:
    model = Patches(lambda self, x: self.layer(x).relu(), layer=nn.Conv2d(WIDTH, WIDTH, 1))
    model.calls = 0

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        model.calls += 1
        return output * (1 + model.calls)

    model.layer.register_forward_hook(hook)
    return model


@twin(labels=patches)
def forward_pre_hook_changes_inputs() -> nn.Module:
    model = Patches(lambda self, x: self.layer(x).relu(), layer=nn.Conv2d(WIDTH, WIDTH, 1))
    model.layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 3 + 1,))
    return model


@twin(labels=patches)
def forward_hook_of_the_model_itself() -> nn.Module:
    model = Patches(lambda self, x: x.relu(), seen=0.0)

    def hook(module: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        module.seen = output.sum().item()
        return output.abs() + 1

    model.register_forward_hook(hook)
    return model


@twin(labels=patches)
def forward_hook_with_keywords_always_called() -> nn.Module:
    model = Patches(lambda self, x: self.layer(x), layer=nn.Conv2d(WIDTH, WIDTH, 1), seen=[])

    def hook(module: Any, inputs: Any, keywords: Any, output: Any) -> None:
        model.seen.append((len(inputs), sorted(keywords), tuple(output.shape)))

    model.layer.register_forward_hook(hook, with_kwargs=True, always_call=True)
    return model


@contextmanager
def _global_hook(index: int) -> Iterator[None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        return output * (2 + index) if isinstance(module, nn.ReLU) else None

    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@twin(labels=patches, context=_global_hook)
def global_forward_hook() -> nn.Module:
    return Patches(lambda self, x: self.act(x), act=nn.ReLU())


@contextmanager
def _global_pre_hook(index: int) -> Iterator[None]:
    def hook(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, nn.ReLU):
            module.calls += 1

    handle = nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@twin(labels=patches, context=_global_pre_hook)
def global_forward_pre_hook_that_counts() -> nn.Module:
    model = Patches(lambda self, x: self.act(self.act(x)), act=nn.ReLU())
    model.act.calls = 0
    return model


@contextmanager
def _global_backward_hook(index: int) -> Iterator[None]:
    def hook(module: nn.Module, given: Any, got: Any) -> Any:
        return (given[0] * 3,) if isinstance(module, nn.ReLU) else None

    handle = nn.modules.module.register_module_full_backward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@twin(labels=patches, context=_global_backward_hook)
def global_backward_hook() -> nn.Module:
    return Patches(lambda self, x: self.act(x), act=nn.ReLU())


@twin(labels=patches)
def gradient_taken_inside_forward() -> nn.Module:
    def inner(self: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(y.square().sum(), y)
        return x - 0.1 * gradient

    return Patches(inner)


@twin(labels=patches)
def double_backward_through_inputs() -> nn.Module:
    def inner(self: Any, x: Tensor) -> Tensor:
        if not x.requires_grad:
            return x
        (gradient,) = torch.autograd.grad(x.pow(3).sum(), x, create_graph=True)
        return gradient

    return Patches(inner)


@contextmanager
def _packed(index: int) -> Iterator[None]:
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x * 2, lambda x: x):
        yield


@twin(labels=patches, context=_packed)
def saved_tensors_hooks_around_the_call() -> nn.Module:
    return Patches(lambda self, x: x.square())


@twin(labels=patches)
def saved_tensors_hooks_inside() -> nn.Module:
    def inner(self: Any, x: Tensor) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(lambda x: x.half(), lambda x: x.float()):
            return x.square()

    return Patches(inner)
