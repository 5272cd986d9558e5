"""Joint attention as operators, for code that `torch.compile` generates.

A compiler can neither try whether an output stays bitwise equal nor ask for memory addresses. Both
are left to the time when its code runs: `labeltrace::attention_and_labels` computes labels jointly
if it can, and separately if it cannot. Whether the model's call uses the CPU's flash kernel at all
depends on sizes, strides and modes. It is decided during compilation, where PyTorch decides it for
the model's own call.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import _disable_current_modes

from labeltrace.fused_attention.flash_with_labels import (
    gradients_of_plain_call,
    plain_flash_call,
    sizes_fit,
)
from labeltrace.fused_attention.joint_eager import fits_flash_kernel, mixed_jointly
from labeltrace.fused_attention.operator import attend

_LIBRARY = torch.library.Library("labeltrace", "FRAGMENT")
_LIBRARY.define(
    "compiled_attention_with_labels("
    "Tensor query, Tensor key, Tensor value, Tensor labels, float? scale"
    ") -> (Tensor, Tensor)"
)


@torch.library.custom_op("labeltrace::attention_and_labels", mutates_args=())
def attention_and_labels(
    query: Tensor, key: Tensor, value: Tensor, labels: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the CPU's flash kernel in float32, and mix labels by it.

    Args:
        query: (B, H, L, E), float32.
        key: (B, H, S, E).
        value: (B, H, S, E).
        labels: (B, S, K), float32; they have no gradient.
        scale: of the scores.

    Returns:
        The output (B, H, L, E), that of the plain call; the logsumexp of the scores (B, H, L);
        labels (B, L, K), averaged over heads, stored by column.
    """
    found = mixed_jointly(query, key, value, labels, scale)
    if found is not None:
        return found
    mixed = attend(query, key, labels, None, False, scale)
    return *plain_flash_call(query, key, value, scale), mixed.mT.contiguous().mT


@attention_and_labels.register_fake
def _results_without_values(
    query: Tensor, key: Tensor, value: Tensor, labels: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    mixed = labels.new_empty(query.shape[0], labels.shape[-1], query.shape[2]).mT
    return *plain_flash_call(query, key, value, scale), mixed


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, value, _, scale = inputs
    mixed_values, logsumexp, mixed_labels = output
    ctx.save_for_backward(query, key, value, mixed_values, logsumexp)
    ctx.scale = scale
    ctx.mark_non_differentiable(logsumexp, mixed_labels)


def _backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    return (*gradients_of_plain_call(gradient, ctx.saved_tensors, ctx.scale), None, None)


attention_and_labels.register_autograd(_backward, setup_context=_keep_for_backward)


@torch.library.impl(_LIBRARY, "compiled_attention_with_labels", "CompositeImplicitAutograd")
def _attention_with_labels(
    query: Tensor, key: Tensor, value: Tensor, labels: Tensor, scale: float | None
) -> tuple[Tensor, Tensor]:
    score_scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if _fit_flash_kernel(query, key, value, labels) and _may_run_flash_kernel():
        output, _, mixed = attention_and_labels(query, key, value, labels, score_scale)
        return output, mixed
    output = torch.ops.aten.scaled_dot_product_attention(query, key, value, scale=scale)
    mixed = attend(query.detach(), key.detach(), labels, None, False, score_scale)
    return output, mixed


def _fit_flash_kernel(query: Tensor, key: Tensor, value: Tensor, labels: Tensor) -> bool:
    """Whether the kernel takes these tensors, and labels are cheaper jointly."""
    return (
        fits_flash_kernel(query, key, value)
        and all(tensor.stride(3) == 1 for tensor in (query, key, value))
        and sizes_fit(query.shape, key.shape, value.shape, labels.shape[-1])
    )


def _may_run_flash_kernel() -> bool:
    """Whether PyTorch would choose the kernel in the present modes.

    A small tensor is asked, because a tensor that is traced has no values. `torch.func` transforms
    must see the plain call, so False under them.
    """
    if torch._C._are_functorch_transforms_active():
        return False
    with _disable_current_modes():
        small = torch.empty(1, 1, 1, 8, device="cpu")
        return torch._fused_sdp_choice(small, small, small) == SDPBackend.FLASH_ATTENTION.value


def compiled_attention_with_labels(
    query: Tensor, key: Tensor, value: Tensor, labels: Tensor, scale: float | None
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention without a mask, and labels mixed by it, in compiled code.

    Args:
        query: (B, H, L, E).
        key: (B, H, S, E).
        value: (B, H, S, F).
        labels: (B, S, K), float32.
        scale: of the scores; `1 / sqrt(E)` if None.

    Returns:
        The output (B, H, L, F), with its gradient, and labels (B, L, K), averaged over heads.
    """
    found: tuple[Tensor, Tensor] = torch.ops.labeltrace.compiled_attention_with_labels(
        query, key, value, labels.detach(), scale
    )
    return found
