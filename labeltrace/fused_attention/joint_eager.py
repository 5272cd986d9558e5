"""Joint attention in eager code: the model's own call computes its output and labels.

The output is bitwise equal to the plain call's (`labeltrace.fused_attention.bitwise_check`), and
the backward pass is that of the plain call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import _get_current_dispatch_mode

from labeltrace.fused_attention.bitwise_check import output_strides_if_bitwise_equal
from labeltrace.fused_attention.flash_with_labels import (
    flash_call_with_labels,
    gradients_of_plain_call,
)

_CPU = torch.device("cpu")
_FLASH = SDPBackend.FLASH_ATTENTION.value


def can_compute_jointly(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether a call without a mask on these tensors may compute labels as well.

    Returns False under dispatch modes and for tensor subclasses, which must see the plain operator.
    It runs at every call; what depends on sizes and strides is checked once, in the trial.

    Args:
        query: (..., L, E).
        key: (..., S, E).
        value: (..., S, E).
    """
    return (
        type(query) is type(key) is type(value) is Tensor
        and fits_flash_kernel(query, key, value)
        and not torch._C._are_functorch_transforms_active()
        and _get_current_dispatch_mode() is None
        and torch._fused_sdp_choice(query, key, value) == _FLASH
    )


def fits_flash_kernel(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the CPU's flash kernel would get these tensors in float32, whatever their sizes."""
    return (
        query.dtype is key.dtype is value.dtype is torch.float32
        and query.device == key.device == value.device == _CPU
        and query.dim() == 4
        and not torch.is_autocast_enabled("cpu")
    )


def attention_with_labels(
    query: Tensor, key: Tensor, value: Tensor, labels: Tensor, scale: float | None
) -> tuple[Tensor, Tensor] | None:
    """Scaled dot-product attention, and labels mixed by it, averaged over heads.

    Args:
        query: (B, H, L, E); `can_compute_jointly` is True of it, the key and the value.
        key: (B, H, S, E).
        value: (B, H, S, E).
        labels: (B, S, K), float32; they have no gradient.
        scale: of the scores; `1 / sqrt(E)` if None.

    Returns:
        The output (B, H, L, E), that of the plain call with its gradient, and labels (B, L, K),
        whose rows sum to one. None if the kernel does not take such sizes, the output would
        change, a row of some head has no finite softmax, or separate labels are cheaper.
    """
    strides = output_strides_if_bitwise_equal(query, key, value, labels.shape[-1])
    if strides is None:
        return None
    output, mixed = _AttentionWithLabels.apply(query, key, value, labels, scale, strides)
    return (output, mixed) if _is_complete(mixed, query.shape[1]) else None


def mixed_jointly(
    query: Tensor, key: Tensor, value: Tensor, labels: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Output, logsumexp and labels as by `attention_with_labels`, without a gradient."""
    strides = output_strides_if_bitwise_equal(query, key, value, labels.shape[-1])
    if strides is None:
        return None
    found = flash_call_with_labels(query, key, value, labels, scale, strides)
    return found if _is_complete(found[-1], query.shape[1]) else None


def _is_complete(mixed: Tensor, heads: int) -> bool:
    """Whether every row of every head had a finite softmax: without one a row mixes NaN or zero."""
    return mixed.sum(-1).amin().item() > 1 - 0.5 / heads


class _AttentionWithLabels(torch.autograd.Function):
    """Its backward pass is the plain call's, because output and logsumexp are equal.

    It has no `setup_context`, which would bind the arguments of each call to their signature.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        query, key, value, _, scale, _ = inputs
        output, logsumexp, mixed = flash_call_with_labels(*inputs)
        ctx.save_for_backward(query, key, value, output, logsumexp)
        ctx.scale = scale
        ctx.mark_non_differentiable(mixed)
        ctx.set_materialize_grads(False)
        return output, mixed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * 6
        gradients = gradients_of_plain_call(gradient, ctx.saved_tensors, ctx.scale)
        return (*gradients, None, None, None)
