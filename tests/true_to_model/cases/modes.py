"""Modes of torch around a call and inside it, and paths that torch takes by itself."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from tests.true_to_model.case import (
    WIDTH,
    Patches,
    constant_images,
    patches,
    prior,
    tokens,
    twin,
)


def _autocast(index: int) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16, enabled=index != 1)


@twin(labels=patches, context=lambda index: torch.no_grad())
def no_grad_outside() -> nn.Module:
    return Patches(lambda self, x: x.relu())


@twin(labels=patches, context=lambda index: torch.inference_mode(), inputs=constant_images)
def inference_mode_outside() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.kept = x
        return x.relu()

    return Patches(forward)


@twin(
    labels=patches, context=lambda index: torch.inference_mode(index == 1), inputs=constant_images
)
def inference_mode_now_and_then() -> nn.Module:
    return Patches(lambda self, x: self.norm(x), norm=nn.BatchNorm2d(WIDTH))


@twin(labels=patches, context=lambda index: torch.set_grad_enabled(index % 2 == 0))
def gradients_enabled_now_and_then() -> nn.Module:
    return Patches(lambda self, x: x if torch.is_grad_enabled() else x * 2)


@twin(labels=patches)
def no_grad_inside() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = self.layer(x).mean((2, 3), keepdim=True)
        return x * scale

    return Patches(forward, layer=nn.Conv2d(WIDTH, WIDTH, 1))


@twin(labels=patches, context=lambda index: torch.no_grad())
def gradients_enabled_inside() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            self.kept = self.layer(x).relu()
        return self.kept.detach()

    return Patches(forward, layer=nn.Conv2d(WIDTH, WIDTH, 1))


@twin(labels=patches)
def gradient_mode_left_as_found_inside() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        y = x * 2
        torch.set_grad_enabled(before)
        return y.detach() + x * 0

    return Patches(forward)


@twin(labels=tokens, context=_autocast)
def autocast_outside() -> nn.Module:
    return Patches(lambda self, x: self.layer(x.flatten(2).mT), layer=nn.Linear(WIDTH, 5))


@twin(labels=tokens)
def autocast_inside() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = self.layer(x.flatten(2).mT)
            with torch.autocast("cpu", enabled=False):
                return self.layer(y.float())

    return Patches(forward, layer=nn.Linear(WIDTH, WIDTH))


@twin(labels=prior, context=_autocast)
def autocast_is_asked_for() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            x = x * 2
        return x.mean((2, 3)).to(torch.get_autocast_dtype("cpu"))

    return Patches(forward)


def _checkpointed(**settings: Any) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        def block(y: Tensor) -> Tensor:
            self.calls += 1
            return F.dropout(self.layer(y).relu(), 0.2)

        return x + checkpoint(block, x, **settings)

    return Patches(forward, layer=nn.Conv2d(WIDTH, WIDTH, 1), calls=0)


@twin(labels=patches)
def checkpoint_reentrant() -> nn.Module:
    return _checkpointed(use_reentrant=True)


@twin(labels=patches)
def checkpoint_not_reentrant() -> nn.Module:
    return _checkpointed(use_reentrant=False)


@twin(labels=patches)
def checkpoint_without_random_state() -> nn.Module:
    return _checkpointed(use_reentrant=False, preserve_rng_state=False, determinism_check="none")


@twin(labels=patches)
def checkpoint_of_a_sequence() -> nn.Module:
    layers = nn.Sequential(*(nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(4)))
    return Patches(
        lambda self, x: checkpoint_sequential(self.layers, 2, x, use_reentrant=False),
        layers=layers,
    )


@contextmanager
def _deterministic(index: int) -> Iterator[None]:
    torch.use_deterministic_algorithms(index == 1, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@twin(labels=patches, context=_deterministic)
def deterministic_flag_is_asked_for() -> nn.Module:
    flag = torch.are_deterministic_algorithms_enabled
    return Patches(lambda self, x: x * (1 + flag()))


@contextmanager
def _default_dtype(index: int) -> Iterator[None]:
    torch.set_default_dtype((torch.float32, torch.float64, torch.float32)[index])
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@twin(labels=patches, context=_default_dtype)
def default_dtype_changes() -> nn.Module:
    return Patches(lambda self, x: x * torch.rand(5, 7))


@twin(labels=patches, context=lambda index: torch.device("cpu"))
def default_device_outside() -> nn.Module:
    return Patches(lambda self, x: x + torch.arange(7.0))


@contextmanager
def _anomalies(index: int) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(torch.autograd.set_detect_anomaly(True))
        yield


@twin(labels=patches, context=_anomalies)
def anomalies_are_detected() -> nn.Module:
    return Patches(lambda self, x: x.sqrt().nan_to_num())


@twin(labels=patches)
def models_that_ask_whether_they_are_traced() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        asked = (
            torch.compiler.is_compiling(),
            torch.compiler.is_exporting(),
            torch.jit.is_tracing(),
            torch.jit.is_scripting(),
            torch._C._get_tracing_state() is not None,
            torch.fx._symbolic_trace.is_fx_tracing(),
            type(x) is Tensor,
            isinstance(x.shape[0], int),
        )
        self.asked.append(asked)
        return x * (1 + sum(asked))

    return Patches(forward, asked=[])


@twin(labels=patches)
def models_that_ask_for_dispatch_modes() -> nn.Module:
    from torch.utils._python_dispatch import _get_current_dispatch_mode

    def forward(self: Any, x: Tensor) -> Tensor:
        self.modes.append((type(_get_current_dispatch_mode()).__name__, x.requires_grad, x.is_leaf))
        return x.relu()

    return Patches(forward, modes=[])


def _encoder(**settings: Any) -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH + 1, 2, 7, batch_first=True, dropout=0.1, **settings)
    return nn.TransformerEncoder(layer, 2)


def _encoded(self: Any, x: Tensor) -> Tensor:
    x = self.widen(x).flatten(2).mT
    mask = torch.zeros(x.shape[:2], dtype=torch.bool)
    if self.padded:
        mask[0, -4:] = True
    return self.encoder(x, src_key_padding_mask=mask)


@twin(context=lambda index: torch.no_grad(), inputs=constant_images)
def encoder_in_eval_mode_without_gradients() -> nn.Module:
    wide = nn.Conv2d(WIDTH, WIDTH + 1, 1)
    return Patches(_encoded, encoder=_encoder(), widen=wide, padded=True).eval()


@twin(context=lambda index: torch.no_grad(), inputs=constant_images)
def encoder_without_nested_tensors() -> nn.Module:
    wide = nn.Conv2d(WIDTH, WIDTH + 1, 1)
    model = Patches(_encoded, encoder=_encoder(), widen=wide, padded=False).eval()
    model.encoder.use_nested_tensor = False
    return model


@twin()
def encoder_in_train_mode() -> nn.Module:
    wide = nn.Conv2d(WIDTH, WIDTH + 1, 1)
    return Patches(_encoded, encoder=_encoder(norm_first=True), widen=wide, padded=True)


def _modes_of_encoder(model: Any, index: int) -> None:
    model.train(index == 1)


@twin(change=_modes_of_encoder)
def encoder_with_gradients_in_both_modes() -> nn.Module:
    wide = nn.Conv2d(WIDTH, WIDTH + 1, 1)
    return Patches(_encoded, encoder=_encoder(), widen=wide, padded=True)


def _attended(self: Any, x: Tensor) -> Any:
    x = self.widen(x).flatten(2).mT
    return self.attention(x, x, x, need_weights=self.need_weights)[0]


def _attention(need_weights: bool) -> Patches:
    return Patches(
        _attended,
        attention=nn.MultiheadAttention(WIDTH + 1, 2, batch_first=True),
        widen=nn.Conv2d(WIDTH, WIDTH + 1, 1),
        need_weights=need_weights,
    )


@twin(context=lambda index: torch.no_grad(), inputs=constant_images)
def attention_in_eval_mode_without_gradients() -> nn.Module:
    return _attention(need_weights=False).eval()


@twin(context=lambda index: torch.no_grad(), inputs=constant_images)
def attention_with_weights_in_eval_mode_without_gradients() -> nn.Module:
    return _attention(need_weights=True).eval()


@twin()
def attention_with_gradients() -> nn.Module:
    return _attention(need_weights=False)


@twin()
def attention_in_a_math_kernel() -> nn.Module:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.flatten(2).mT[:, None]
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(x, x, x)[:, 0]

    return Patches(forward)


@twin(labels=prior)
def vmap_inside() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        norms = torch.vmap(lambda row: row / (1 + row.square().sum()))(self.matrix)
        return x @ norms

    return Patches(forward, matrix=nn.Parameter(torch.randn(WIDTH, 5)))


@twin(labels=patches)
def func_grad_inside() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        slope = torch.func.grad(lambda scale: (scale**3).sum())(self.scale)
        return x * slope

    return Patches(forward, scale=nn.Parameter(torch.randn(WIDTH, 1, 1)))


@twin(labels=patches)
def functional_call_inside() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        state = {name: value * 2 for name, value in self.layer.named_parameters()}
        return torch.func.functional_call(self.layer, state, (x,))

    return Patches(forward, layer=nn.Conv2d(WIDTH, WIDTH, 1))


@twin(labels=patches)
def scripted_function_inside() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        return F.hardtanh(F.mish(x)) + F.softplus(x, 2.0) * 0

    return Patches(forward)
