"""Labels that the model's own attention call computes, in eager code.

The model's output must stay what it is bit for bit (:mod:`labeltrace.fused_attention.trials`), and
the backward pass is that of the plain call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import _get_current_dispatch_mode

from labeltrace.fused_attention.trials import strides_if_unchanged
from labeltrace.fused_attention.wide_call import gradients_of_plain_call, wide_flash_call

_FEWEST_TOKENS = 32  # of which labels are hardly cheaper within


def may_attend_within(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether labels may be computed within the plain call, without a mask, of these tensors.

    Not in code that is being traced, nor for whoever looks at operators or tensors of his own type,
    who are to see the plain call.

    Args:
        query: (..., L, E).
        key: (..., S, E).
        value: (..., S, E).
    """
    return (
        not torch.compiler.is_compiling()
        and all(type(tensor) is Tensor for tensor in (query, key, value))
        and not torch._C._are_functorch_transforms_active()
        and _get_current_dispatch_mode() is None
        and fit_flash_kernel(query, key, value)
        and torch._fused_sdp_choice(query, key, value) == SDPBackend.FLASH_ATTENTION.value
    )


def fit_flash_kernel(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the processor's flash kernel takes these tensors, in float32 and without a mask.

    And whether they are so many tokens that labels are cheaper within.  This reads no more than
    sizes, strides, dtypes and devices.
    """
    tensors = (query, key, value)
    return (
        all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
        and query.dim() == 4
        and key.shape == value.shape
        and query.shape[:2] == key.shape[:2]
        and query.shape[3] == key.shape[3]
        and all(tensor.stride(3) == 1 for tensor in tensors)
        and min(query.shape[2], key.shape[2]) >= _FEWEST_TOKENS
        and torch.backends.mkl.is_available()
        and not torch.is_autocast_enabled("cpu")
    )


def attend_within(
    query: Tensor, key: Tensor, value: Tensor, labels: Tensor, scale: float | None
) -> tuple[Tensor, Tensor] | None:
    """Scaled dot-product attention, and labels mixed by it, averaged over heads.

    Args:
        query: (B, H, L, E), one that :func:`may_attend_within` allows with the next two.
        key: (B, H, S, E).
        value: (B, H, S, E).
        labels: (B, S, K), float32; they have no gradient.
        scale: of the scores; ``1 / sqrt(E)`` if None.

    Returns:
        The output (B, H, L, E), that of the plain call with its gradient, and labels (B, L, K),
        whose rows sum to one.  None where the output would be another, where a row of some head
        has no finite softmax, or where computing the labels apart is cheaper.
    """
    strides = _strides_within(query, key, value, labels.shape[-1])
    if strides is None:
        return None
    output, mixed = _AttentionWithLabels.apply(query, key, value, labels.detach(), scale, strides)
    return (output, mixed) if _is_complete(mixed, query.shape[1]) else None


def mixed_within(
    query: Tensor, key: Tensor, value: Tensor, labels: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """As :func:`attend_within`, without a gradient, and the logarithms of the normalisers."""
    strides = _strides_within(query, key, value, labels.shape[-1])
    if strides is None:
        return None
    found = wide_flash_call(query, key, value, labels, scale, strides)
    return found if _is_complete(found[-1], query.shape[1]) else None


def _strides_within(
    query: Tensor, key: Tensor, value: Tensor, columns: int
) -> tuple[int, ...] | None:
    """How the output lies in memory; None where it would be another, or labels dearer than apart.

    Many columns cost as much as the scores.
    """
    if columns > query.shape[-1] // 2:
        return None
    return strides_if_unchanged(query, key, value, columns)


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
        output, normalisers, mixed = wide_flash_call(*inputs)
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
