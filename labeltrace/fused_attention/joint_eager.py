"""Labels that the model's own attention call computes, in eager code.

The model's output must stay what it is bit for bit (:mod:`labeltrace.fused_attention.bitwise_check`), and
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

_PROCESSOR = torch.device("cpu")
_FLASH = SDPBackend.FLASH_ATTENTION.value


def can_compute_jointly(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether labels may be computed within the plain call, without a mask, of these tensors.

    Not for whoever looks at operators or tensors of his own type, who are to see the plain call.
    This runs at every call: what sizes and strides say is found out once, with the trial.

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
    """Whether the processor's flash kernel would see them in float32, whatever their sizes are."""
    return (
        query.dtype is key.dtype is value.dtype is torch.float32
        and query.device == key.device == value.device == _PROCESSOR
        and query.dim() == 4
        and not torch.is_autocast_enabled("cpu")
    )


def attention_with_labels(
    query: Tensor, key: Tensor, value: Tensor, labels: Tensor, scale: float | None
) -> tuple[Tensor, Tensor] | None:
    """Scaled dot-product attention, and labels mixed by it, averaged over heads.

    Args:
        query: (B, H, L, E), one that :func:`can_compute_jointly` allows with the next two.
        key: (B, H, S, E).
        value: (B, H, S, E).
        labels: (B, S, K), float32; they have no gradient.
        scale: of the scores; ``1 / sqrt(E)`` if None.

    Returns:
        The output (B, H, L, E), that of the plain call with its gradient, and labels (B, L, K),
        whose rows sum to one.  None where the kernel does not take such sizes, where the output
        would be another, where a row of some head has no finite softmax, or where computing the
        labels apart is cheaper.
    """
    strides = output_strides_if_bitwise_equal(query, key, value, labels.shape[-1])
    if strides is None:
        return None
    output, mixed = _AttentionWithLabels.apply(query, key, value, labels, scale, strides)
    return (output, mixed) if _is_complete(mixed, query.shape[1]) else None


def mixed_jointly(
    query: Tensor, key: Tensor, value: Tensor, labels: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """As :func:`attention_with_labels`, without a gradient, and the logarithms of the normalisers."""
    strides = output_strides_if_bitwise_equal(query, key, value, labels.shape[-1])
    if strides is None:
        return None
    found = flash_call_with_labels(query, key, value, labels, scale, strides)
    return found if _is_complete(found[-1], query.shape[1]) else None


def _is_complete(mixed: Tensor, heads: int) -> bool:
    """Without a finite softmax, a row of one head mixes NaN, or nothing if all scores are -inf."""
    return mixed.sum(-1).amin().item() > 1 - 0.5 / heads


class _AttentionWithLabels(torch.autograd.Function):
    """Its backward pass is the plain call's: outputs and normalisers are the same.

    Without ``setup_context``, which has the arguments of each call bound by their signature.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        query, key, value, _, scale, _ = inputs
        output, normalisers, mixed = flash_call_with_labels(*inputs)
        ctx.save_for_backward(query, key, value, output, normalisers)
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
