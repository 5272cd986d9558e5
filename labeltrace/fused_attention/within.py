"""Labels as further columns of the values: the model's own attention kernel mixes them as well.

Fused attention computes the scores of queries and keys and multiplies the values with their
softmax.  Labels that stand beside the values, ``[V, Y]``, are multiplied with it in the same pass:
nothing is computed twice but what the further columns themselves need.  The processor's kernel
takes queries, keys and values of one head size, so queries and keys get as many columns of noughts.

The model's output must stay what it is bit for bit.  It does if the kernel adds up in the same
order with the further columns, which depends on sizes, strides and libraries but not on values: so
each setting is tried once, on random numbers.  The backward pass is that of the plain call.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import _get_current_dispatch_mode

_COPIED_AT_ONCE = 2**19  # elements of queries, keys and values

_ALIGNMENT = 64  # bytes, of what PyTorch allocates on a processor

# A single query or key that the kernel's blocks leave over is multiplied as a vector, not a matrix.
# MKL then adds up in an order that depends on where memory lies, and a trial would prove nothing.
_BLOCK_OF_QUERIES = 32  # 32, 64 or 256
_BLOCK_OF_KEYS = 512

_FEWEST_TOKENS = 32  # of which labels are hardly cheaper within
_ELEMENTS_TRIED = 2**17  # so many that another order of adding up shows in some of them

_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def may_attend_within(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the plain call, without a mask, would run the processor's flash kernel in float32.

    And whether that is worth it and adds up in a fixed order: few tokens are left out, and some
    numbers of them (257, 577).

    Args:
        query: (..., L, E).
        key: (..., S, E).
        value: (..., S, E).
    """
    tensors = (query, key, value)
    return (
        not torch.compiler.is_compiling()
        and all(type(tensor) is Tensor for tensor in tensors)
        and all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
        and query.dim() == 4
        and key.shape == value.shape
        and query.shape[:2] == key.shape[:2]
        and min(query.shape[2], key.shape[2]) >= _FEWEST_TOKENS
        and query.shape[2] % _BLOCK_OF_QUERIES != 1
        and key.shape[2] % _BLOCK_OF_KEYS != 1
        and torch.backends.mkl.is_available()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and _get_current_dispatch_mode() is None  # who looks at operators sees the plain call
        and torch._fused_sdp_choice(query, key, value) == SDPBackend.FLASH_ATTENTION.value
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
        whose rows sum to one where a row's softmax is finite.  None where the output would be
        another, or where computing the labels apart is cheaper.
    """
    if labels.shape[-1] > query.shape[-1] // 2:  # many columns cost as much as scores
        return None
    tensors = (query, key, value)
    layouts = tuple(_Strided.of(tensor) for tensor in tensors)
    strides = _strides_if_unchanged(layouts, labels.shape[-1], torch.get_num_threads())
    if strides is None:
        return None
    output, _, mixed = _AttentionWithLabels.apply(*tensors, labels.detach(), scale, strides)
    return output, mixed


def _run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    labels: Tensor,
    scale: float | None,
    strides: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, which lies in memory as told, logarithms of the normalisers, and labels.

    Some samples at a time, whose copies stay in the cache and in memory that is at hand.
    """
    (batch, heads, queries, size), columns = query.shape, labels.shape[-1]
    output = query.new_empty_strided(query.shape, strides)
    normalisers = query.new_empty(batch, queries, heads).transpose(1, 2)
    mixed = labels.new_empty(batch, queries, columns)
    samples = max(1, _COPIED_AT_ONCE // ((query[0].numel() + 2 * key[0].numel()) or 1))
    wide_query, wide_key, wide_value = (_wide(t[:samples], columns) for t in (query, key, value))
    for start in range(0, batch, samples):
        part = slice(start, start + samples)
        count = len(query[part])
        wide_query[:count, ..., :size] = query[part]
        wide_key[:count, ..., :size] = key[part]
        wide_value[:count, ..., :size] = value[part]
        wide_value[:count, ..., size:] = labels[part].unsqueeze(1)
        wide, normalisers[part] = _kernel(
            wide_query[:count],
            wide_key[:count],
            wide_value[:count],
            scale=1 / math.sqrt(size) if scale is None else scale,
        )
        output[part] = wide[..., :size]
        torch.mean(wide[..., size:], 1, out=mixed[part])
    return output, normalisers, mixed


class _AttentionWithLabels(torch.autograd.Function):
    """Its backward pass is the plain call's: outputs and normalisers are the same."""

    forward = staticmethod(_run)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        query, key, value, _, scale, _ = inputs
        mixed_values, normalisers, mixed_labels = output
        ctx.save_for_backward(query, key, value, mixed_values, normalisers)
        ctx.scale = scale
        ctx.mark_non_differentiable(normalisers, mixed_labels)
        ctx.set_materialize_grads(False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * 6
        gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient, *ctx.saved_tensors, 0.0, False, scale=ctx.scale
        )
        return (*gradients, None, None, None)


def _wide(tensor: Tensor, columns: int) -> Tensor:
    """Room for (B, H, N, E) and further columns, which are noughts."""
    *shape, size = tensor.shape
    wide = tensor.new_empty(*shape, size + columns)
    wide[..., size:] = 0
    return wide


@dataclass(frozen=True, slots=True)
class _Strided:
    """How a tensor lies in memory; ``offset`` counts elements from an aligned address."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, tensor: Tensor) -> _Strided:
        offset = tensor.data_ptr() % _ALIGNMENT // tensor.element_size()
        return cls(tuple(tensor.shape), tensor.stride(), offset)

    def random(self, generator: torch.Generator) -> Tensor:
        """Random numbers that lie so."""
        last = sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        memory = torch.randn(self.offset + last + 1, generator=generator, device="cpu")
        return memory.as_strided(self.shape, self.strides, self.offset)


@functools.lru_cache(maxsize=1024)
def _strides_if_unchanged(
    layouts: tuple[_Strided, ...], columns: int, threads: int
) -> tuple[int, ...] | None:
    """The plain output's strides; None where further columns change it or the normalisers."""
    generator = torch.Generator("cpu").manual_seed(0)
    tried = 0
    with torch.no_grad():
        while tried < _ELEMENTS_TRIED:
            query, key, value = (layout.random(generator) for layout in layouts)
            shape = (key.shape[0], key.shape[2], columns)
            labels = torch.rand(shape, generator=generator, device="cpu")
            plain, normalisers = _kernel(query, key, value)
            found = _run(query, key, value, labels, None, plain.stride())
            if not (torch.equal(plain, found[0]) and torch.equal(normalisers, found[1])):
                return None
            tried += plain.numel()
    return plain.stride()
