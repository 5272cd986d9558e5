"""The launch of the Triton kernel: block sizes, strides, one program per block of queries."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from labeltrace.fused_attention.triton_kernel import attend_kernel

FEW_SOURCES = 4  # up to this number, sums over keys are cheaper than a product of 16 columns
_LEAST = 16  # the smallest side of a matrix product in Triton


@dataclass(frozen=True, slots=True)
class Blocks:
    """The sizes of one program, powers of two, its warps and its pipeline stages."""

    rows: int
    columns: int
    features: int
    sources: int
    warps: int
    stages: int


def blocks_for(
    queries: int,
    keys: int,
    head_size: int,
    sources: int,
    samples: int,
    *,
    masked: bool,
    in_float32: bool,
    processors: int,
) -> Blocks:
    """Blocks that fit the shapes and, if possible, give every multiprocessor two programs.

    Within these limits the compiled kernel, for compute capabilities 8.0 and 9.0, keeps its values
    in registers and needs less than 99 KiB of shared memory.
    """
    features = max(_power_of_two(head_size), _LEAST)
    heavy = in_float32 or features > 128
    columns = min(32 if heavy or masked else 64, max(_power_of_two(keys), _LEAST))
    rows = min(32 if heavy else 64, max(_power_of_two(queries), _LEAST))
    while rows > _LEAST and samples * -(-queries // rows) < 2 * processors:
        rows //= 2
    few = sources <= FEW_SOURCES
    width = _power_of_two(sources) if few else min(32, max(_power_of_two(sources), _LEAST))
    return Blocks(
        rows, columns, features, width, warps=8 if features > 128 else 4, stages=2 if heavy else 3
    )


def attend_with_triton(
    query: Tensor,
    key: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float,
) -> Tensor:
    """Run `labeltrace::attend` as one kernel, without waiting for it.

    Args:
        query: (A, B, H, L, E), two batch dimensions; a program holds all E features at once.
        key: (A, B, G, S, E).
        labels: (A, B, S, K).
        mask: (A, B, H, L, S).
        is_causal: query i sees keys 0 to i only.
        scale: of the scores.

    Returns:
        (A, B, L, K), float32.
    """
    outer, inner, heads, queries, head_size = query.shape
    keys, sources = labels.shape[-2:]
    result = labels.new_empty(outer, inner, queries, sources)
    if result.numel() == 0:
        return result
    in_float32 = query.dtype != key.dtype or query.dtype not in (torch.bfloat16, torch.float16)
    blocks = blocks_for(
        queries,
        keys,
        head_size,
        sources,
        outer * inner,
        masked=mask is not None,
        in_float32=in_float32,
        processors=_processors(query.device),
    )
    row_blocks = -(-queries // blocks.rows)
    source_blocks = -(-sources // blocks.sources)
    kind = "none"
    if mask is not None:
        kind = "boolean" if mask.dtype == torch.bool else "additive"
        mask = mask.view(torch.uint8) if kind == "boolean" else mask
    with torch.cuda.device_of(query):
        attend_kernel[(row_blocks * source_blocks * outer * inner,)](
            query,
            key,
            labels,
            mask,
            result,
            scale,
            inner,
            heads,
            heads // key.shape[2],
            queries,
            keys,
            sources,
            row_blocks,
            source_blocks,
            *query.stride(),
            *key.stride(),
            *labels.stride(),
            *((0,) * 5 if mask is None else mask.stride()),
            HEAD_SIZE=head_size,
            MASK=kind,
            CAUSAL=is_causal,
            IN_FLOAT32=in_float32,
            FEW_SOURCES=sources if sources <= FEW_SOURCES else 0,
            # Three products in TF32 keep float32's precision on NVIDIA's tensor cores.
            LABEL_PRECISION="ieee" if torch.version.hip else "tf32x3",
            ROWS=blocks.rows,
            COLUMNS=blocks.columns,
            FEATURES=blocks.features,
            SOURCES=blocks.sources,
            num_warps=blocks.warps,
            num_stages=blocks.stages,
        )
    return result


@functools.cache
def _processors(device: torch.device) -> int:
    """How many multiprocessors a GPU has."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _power_of_two(size: int) -> int:
    """The smallest power of two that is at least `size`."""
    return 1 << (size - 1).bit_length()
