"""Labels as further columns of the values: the model's own attention kernel mixes them as well.

Fused attention computes the scores of queries and keys and multiplies the values with their
softmax.  Labels that stand beside the values, ``[V, Y]``, are multiplied with it in the same pass:
nothing is computed twice but what the further columns themselves need.  The processor's kernel
takes queries, keys and values of one head size: queries get as many columns of noughts, and keys
what happens to lie behind them in memory, which the noughts leave without effect if it is finite.

The model's output must stay what it is bit for bit.  It does if the kernel adds up in the same
order with the further columns, which depends on sizes, strides and libraries but not on values: so
each setting is tried once, on random numbers.  The backward pass is that of the plain call.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import _get_current_dispatch_mode

_COPIED_AT_ONCE = 2**19  # elements of queries, keys and values

_ALIGNMENT = 64  # bytes, of what PyTorch allocates on a processor

# A single query or key that the kernel's blocks leave over is multiplied as a vector, not a matrix.
# MKL then adds up in an order that depends on how memory is aligned (oneMKL Developer Guide,
# "Obtaining Numerically Reproducible Results"), and a trial would prove nothing: for such a query
# the plain call's output is computed; for such a key all rows that are multiplied with it must be
# aligned, copies as well, or labels are computed apart.
_BLOCK_OF_QUERIES = 32  # 32, 64 or 256
_BLOCK_OF_KEYS = 512

_FEWEST_TOKENS = 32  # of which labels are hardly cheaper within
_ELEMENTS_TRIED = 2**17  # so many that another order of adding up shows in some of them
_HEADS_TRIED = 2**6  # of a key left over, whose order may be another for a single query

_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def may_attend_within(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the plain call, without a mask, would run the processor's flash kernel in float32.

    And whether that is worth it and adds up in a fixed order: few tokens are left out, and memory
    that is not aligned for some numbers of them (513, 1025).

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
        and not (_leaves_a_key_over(key.shape[2]) and _lies_askew(query, key))
        and torch.backends.mkl.is_available()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and _get_current_dispatch_mode() is None  # who looks at operators sees the plain call
        and torch._fused_sdp_choice(query, key, value) == SDPBackend.FLASH_ATTENTION.value
    )


def _leaves_a_key_over(keys: int) -> bool:
    return keys % _BLOCK_OF_KEYS == 1


def _lies_askew(*tensors: Tensor) -> bool:
    """Whether any row of (B, H, N, E) starts where PyTorch would not begin to allocate."""
    strides = (
        stride * tensor.element_size() for tensor in tensors for stride in tensor.stride()[:-1]
    )
    places = itertools.chain((tensor.data_ptr() for tensor in tensors), strides)
    return any(place % _ALIGNMENT for place in places)


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
    if labels.shape[-1] > query.shape[-1] // 2:  # many columns cost as much as scores
        return None
    columns = labels.shape[-1]
    layouts = (_Strided.of(query), _Strided.of(key, columns), _Strided.of(value))
    strides = _strides_if_unchanged(layouts, columns, torch.get_num_threads())
    if strides is None:
        return None
    output, mixed = _AttentionWithLabels.apply(query, key, value, labels.detach(), scale, strides)
    # Without a finite softmax, a row of one head mixes NaN, or nothing where all scores are -inf.
    complete = mixed.sum(-1).amin().item() > 1 - 0.5 / query.shape[1]
    return (output, mixed) if complete else None


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
    mixed = labels.new_empty(batch, columns, queries).mT
    normalisers: list[Tensor] = []
    pieces = _pieces(batch, _COPIED_AT_ONCE // ((query[0].numel() + 2 * key[0].numel()) or 1))
    scale = 1 / math.sqrt(size) if scale is None else scale
    parts = zip(
        _beside_noughts(query, columns, pieces),
        _beside_anything(key, columns, pieces),
        _beside_labels(value, labels, pieces),
        output.split_with_sizes(pieces),
        mixed.split_with_sizes(pieces),
        strict=True,
    )
    for wide_query, wide_key, wide_value, output_part, mixed_part in parts:
        wide, logarithms = _kernel(wide_query, wide_key, wide_value, scale=scale)
        values_mixed, labels_mixed = wide.split_with_sizes((size, columns), -1)
        output_part.copy_(values_mixed)
        torch.sum(labels_mixed, 1, out=mixed_part)
        normalisers.append(logarithms.mT)
    logarithms = torch.cat(normalisers).mT
    if queries % _BLOCK_OF_QUERIES == 1:
        _replace_last_query(output, logarithms, query, key, value, scale)
    return output, logarithms, mixed.div_(heads)


def _replace_last_query(
    output: Tensor, normalisers: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> None:
    """Put the plain call's numbers in the last row, the one that its blocks leave over.

    It is left over by these queries as well, and lies likewise in the kernel's own memory: by
    itself it would not.
    """
    last = slice(-1 - _BLOCK_OF_QUERIES, None)
    plain, logarithms = _kernel(query[:, :, last], key, value, scale=scale)
    output[:, :, -1] = plain[:, :, -1]
    normalisers[:, :, -1] = logarithms[:, :, -1]


def _pieces(samples: int, at_once: int) -> list[int]:
    """How many samples are copied at a time; only the last piece may be smaller."""
    whole, rest = divmod(samples, max(1, at_once))
    return [max(1, at_once)] * whole + [rest] * bool(rest)


def _beside_noughts(tensor: Tensor, columns: int, pieces: list[int]) -> Iterator[Tensor]:
    """Some samples of (B, H, N, E) at a time, each in the memory of the last, and noughts."""
    return (wide for wide, _ in _copied(tensor, columns, pieces))


def _beside_labels(tensor: Tensor, labels: Tensor, pieces: list[int]) -> Iterator[Tensor]:
    """Likewise, with labels (B, N, K) instead of noughts, the same for all heads."""
    copies = _copied(tensor, labels.shape[-1], pieces)
    parts = labels.unsqueeze(1).split_with_sizes(pieces)
    for (wide, beside), part in zip(copies, parts, strict=True):
        beside.copy_(part)
        yield wide


def _copied(tensor: Tensor, columns: int, pieces: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Likewise, and the columns beside by themselves; rows are aligned.

    Views are made once: next to a copy that lies in the cache, they are not for nothing.
    """
    *shape, size = tensor.shape[1:]
    unit = _ALIGNMENT // tensor.element_size()
    memory = tensor.new_empty(pieces[0], *shape, -(-(size + columns) // unit) * unit)
    wide = memory[..., : size + columns]
    own, beside = wide.split_with_sizes((size, columns), -1)
    beside.zero_()
    for part in tensor.split_with_sizes(pieces):
        if len(part) < len(wide):  # the last
            wide, own, beside = (one[: len(part)] for one in (wide, own, beside))
        own.copy_(part)
        yield wide, beside


def _beside_anything(tensor: Tensor, columns: int, pieces: list[int]) -> Iterable[Tensor]:
    """Likewise, with columns of any numbers: without a copy if memory goes on behind the tensor."""
    if _behind(tensor) < columns:
        return _beside_noughts(tensor, columns, pieces)
    *shape, size = tensor.shape
    wide = tensor.as_strided((*shape, size + columns), tensor.stride())
    return wide.split_with_sizes(pieces)


def _behind(tensor: Tensor) -> int:
    """How many elements of its memory lie behind the tensor's last."""
    elements = tensor.untyped_storage().nbytes() // tensor.element_size()
    return int(elements - tensor.storage_offset()) - _extent(tensor.shape, tensor.stride())


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements of memory from a tensor's first to its last."""
    return 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))


class _AttentionWithLabels(torch.autograd.Function):
    """Its backward pass is the plain call's: outputs and normalisers are the same.

    Without ``setup_context``, which has the arguments of each call bound by their signature.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        query, key, value, _, scale, _ = inputs
        output, normalisers, mixed = _run(*inputs)
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
        gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient, *ctx.saved_tensors, 0.0, False, scale=ctx.scale
        )
        return (*gradients, None, None, None)


@dataclass(frozen=True, slots=True)
class _Strided:
    """How a tensor lies in memory; ``offset`` counts elements from an aligned address.

    ``behind`` counts the elements behind it, so far as the kernel may read them.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    behind: int

    @classmethod
    def of(cls, tensor: Tensor, columns: int = 0) -> _Strided:
        offset = tensor.data_ptr() % _ALIGNMENT // tensor.element_size()
        behind = columns if _behind(tensor) >= columns else 0
        return cls(tuple(tensor.shape), tensor.stride(), offset, behind)

    def random(self, generator: torch.Generator, of_last: float = 1.0) -> Tensor:
        """Random numbers that lie so, those of the last token so many times as large."""
        elements = self.offset + _extent(self.shape, self.strides) + self.behind
        memory = torch.randn(elements, generator=generator, device="cpu")
        if of_last != 1:
            places = torch.arange(elements, device="cpu")
            last = places.as_strided(self.shape, self.strides, self.offset)[:, :, -1]
            memory[last.unique()] *= of_last  # tokens may share memory, which takes no `mul_`
        return memory.as_strided(self.shape, self.strides, self.offset)


@functools.lru_cache(maxsize=1024)
def _strides_if_unchanged(
    layouts: tuple[_Strided, ...], columns: int, threads: int
) -> tuple[int, ...] | None:
    """The plain output's strides; None where further columns change it or the normalisers."""
    generator = torch.Generator("cpu").manual_seed(0)
    with torch.no_grad():
        for query, key, value in _trials(layouts, generator):
            shape = (key.shape[0], key.shape[2], columns)
            labels = torch.rand(shape, generator=generator, device="cpu")
            plain, normalisers = _kernel(query, key, value)
            found = _run(query, key, value, labels, None, plain.stride())
            if not (torch.equal(plain, found[0]) and torch.equal(normalisers, found[1])):
                return None
    return plain.stride()


def _trials(layouts: tuple[_Strided, ...], generator: torch.Generator) -> Iterator[list[Tensor]]:
    """Random queries, keys and values that lie so, as often as it takes to see a difference.

    A single score would hardly tell in the sums over all keys: a key left over is made to prevail.
    """
    query, key, value = layouts
    (batch, heads, *rest), keys = query.shape, key.shape[2]
    for _ in range(math.ceil(_ELEMENTS_TRIED / (batch * heads * math.prod(rest)))):
        yield [layout.random(generator) for layout in layouts]
    if not _leaves_a_key_over(keys):
        return
    for _ in range(math.ceil(_HEADS_TRIED / (batch * heads))):
        yield [query.random(generator), key.random(generator, 4), value.random(generator, 1e4)]
