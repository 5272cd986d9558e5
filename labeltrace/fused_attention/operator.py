"""The operator `labeltrace::attend`: its arguments, its checks, and what runs on which device."""

from __future__ import annotations

import functools
import importlib.util

import torch
from torch import Tensor

from labeltrace.fused_attention.blockwise import attend_in_blocks

_LARGEST_HEAD_SIZE_OF_KERNEL = 256


# Any strides are allowed, so a compiler need not copy inputs to keep the strides that it saw.
@torch.library.custom_op("labeltrace::attend", mutates_args=(), tags=(torch.Tag.flexible_layout,))
def attend(
    query: Tensor,
    key: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float,
) -> Tensor:
    """Mix labels with the probabilities of scaled dot-product attention, averaged over heads.

    `mean_h(softmax(scale * q_h k_h^T + mask_h)) Y`: eq. 9 of the paper, for models that never form
    their attention maps. Neither does this operator, on any device: memory grows with the result,
    not with L times S. It has no gradient.

    Args:
        query: (batch..., H, L, E), any floating dtype, any strides.
        key: (batch..., G, S, E); G divides H, and H / G neighboring heads of queries share one
            head of keys.
        labels: (batch..., S, K), float32.
        mask: broadcasts to (batch..., H, L, S): False or -inf where a query must not look, added
            to the scores unless it is boolean.
        is_causal: query i sees keys 0 to i only.
        scale: of the scores.

    The batch dimensions broadcast. Two of them are taken as they are; more are reshaped to two,
    which copies a tensor if no view can do it.

    Returns:
        (batch..., L, K), float32, contiguous. If a head's row of probabilities is masked entirely
        or not finite, it mixes all keys equally.

    Raises:
        ValueError: sizes or dtypes that do not fit.
    """
    batch = _batch_shape(query, key, labels, mask)
    inputs = (
        _with_two_batch_dims(query, batch, 3),
        _with_two_batch_dims(key, batch, 3),
        _with_two_batch_dims(labels, batch, 2),
        None if mask is None else _with_two_batch_dims(_full_mask(mask, query, key), batch, 3),
    )
    run = attend_in_blocks
    small = query.shape[-1] <= _LARGEST_HEAD_SIZE_OF_KERNEL
    if query.device.type == "cuda" and small and _has_triton():
        from labeltrace.fused_attention.triton_launch import attend_with_triton as run
    result = run(*inputs, is_causal, scale)
    return result.reshape(*batch, query.shape[-2], labels.shape[-1])


@attend.register_fake
def _result_without_values(
    query: Tensor,
    key: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float,
) -> Tensor:
    batch = _batch_shape(query, key, labels, mask)
    return labels.new_empty(*batch, query.shape[-2], labels.shape[-1])


def _batch_shape(query: Tensor, key: Tensor, labels: Tensor, mask: Tensor | None) -> torch.Size:
    """The batch dimensions that all inputs broadcast to; their other dimensions are checked."""
    if labels.dtype != torch.float32:
        raise ValueError(f"labels are float32, not {labels.dtype}")
    if not (query.is_floating_point() and key.is_floating_point()):
        raise ValueError(f"queries and keys are floating, not {query.dtype} and {key.dtype}")
    if query.dim() < 3 or key.dim() < 3 or labels.dim() < 2:
        raise ValueError(
            "queries (..., H, L, E), keys (..., G, S, E) and labels (..., S, K) have too few "
            f"dimensions: {_shapes(query, key, labels)}"
        )
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"queries and keys differ in head size: {_shapes(query, key)}")
    if query.shape[-3] % key.shape[-3]:
        raise ValueError(f"heads of keys do not divide those of queries: {_shapes(query, key)}")
    if key.shape[-2] != labels.shape[-2]:
        raise ValueError(f"there is not one label for each key: {_shapes(key, labels)}")
    leading = [query.shape[:-3], key.shape[:-3], labels.shape[:-2]]
    if mask is not None:
        if mask.dtype != torch.bool and not mask.is_floating_point():
            raise ValueError(f"a mask is boolean or floating, not {mask.dtype}")
        leading.append(mask.shape[:-3])
    return torch.broadcast_shapes(*leading)


def _shapes(*tensors: Tensor) -> str:
    return " and ".join(str(tuple(tensor.shape)) for tensor in tensors)


def _full_mask(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """The mask as (..., H, L, S), a view."""
    while mask.dim() < 3:
        mask = mask.unsqueeze(0)
    return mask.expand(*mask.shape[:-3], *query.shape[-3:-1], key.shape[-2])


def _with_two_batch_dims(tensor: Tensor, batch: torch.Size, own: int) -> Tensor:
    """The tensor as (outer, inner, own...); its last `own` dimensions are not batch dimensions."""
    tensor = tensor.expand(*batch, *tensor.shape[-own:])
    while tensor.dim() < own + 2:
        tensor = tensor.unsqueeze(0)
    return tensor.flatten(0, -own - 2)


@functools.cache
def _has_triton() -> bool:
    """Whether Triton is installed; torch for CUDA on Linux brings it along."""
    return importlib.util.find_spec("triton") is not None
