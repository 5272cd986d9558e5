"""``labeltrace::attend`` against the dense formula in float64, and all that has to run it."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.export import Dim
from torch.utils._python_dispatch import TorchDispatchMode

from labeltrace import fused_attention, label_ops
from labeltrace.fused_attention import blockwise

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
GPU = pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")

settings.register_profile("attention", deadline=None, derandomize=True, database=None)
many, few = (settings(settings.get_profile("attention"), max_examples=n) for n in (120, 25))


@dataclass(frozen=True)
class Case:
    """Arguments of the operator."""

    query: Tensor
    key: Tensor
    labels: Tensor
    mask: Tensor | None
    is_causal: bool
    scale: float

    def __iter__(self) -> Iterator[Any]:
        return iter(vars(self).values())


def dense(case: Case) -> Tensor:
    """The formula in float64; scores as large as float32 cannot hold are infinite."""
    groups = case.query.shape[-3] // case.key.shape[-3]
    key = case.key.double().repeat_interleave(groups, -3)
    scores = (case.query.double() @ key.mT) * case.scale
    scores = torch.where(scores.abs() > torch.finfo(torch.float32).max, scores * math.inf, scores)
    if case.is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = torch.where(seen, scores, -math.inf)
    if case.mask is not None and case.mask.dtype == torch.bool:
        scores = torch.where(case.mask, scores, -math.inf)
    elif case.mask is not None:
        scores = scores + case.mask.double()
    maps = scores.softmax(-1).nan_to_num(nan=1 / key.shape[-2])
    return maps.mean(-3) @ case.labels.double()


DEGENERATE: dict[str, Callable[[Tensor], None]] = {
    "nothing": lambda tensor: None,
    "huge row": lambda tensor: tensor[..., 0, :].mul_(1e3 if tensor.dtype.itemsize < 4 else 1e25),
    "row overflows": lambda tensor: tensor[..., 0, 1, :].fill_(math.inf),
    "row is not a number": lambda tensor: tensor[..., 0, 1, 0].fill_(math.nan),
}


@st.composite
def cases(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...], device: str = "cpu") -> Case:
    """Sizes that are distinct primes, strides and masks of every kind, rows gone wrong."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    queries, keys = draw(st.sampled_from((2, 13, 41))), draw(st.sampled_from((5, 37, 73)))
    size, sources = draw(st.sampled_from((3, 17, 31))), draw(st.sampled_from((1, 4, 7, 19, 43)))
    group, heads_a_key = draw(st.permutations((1, 2, 3)))[:2]
    batch = draw(st.sampled_from([(), (2,), (2, 3), (2, 1, 3)]))
    dtype = draw(st.sampled_from(dtypes))

    def random(*shape: int) -> Tensor:
        """With dimensions that lie in another order in memory; now and then every other element."""
        order = draw(st.permutations(range(len(shape))))
        step = draw(st.sampled_from([1, 1, 2]))
        stored = torch.randn([shape[i] * step for i in order], generator=generator)
        stored = stored[(slice(None, None, step),) * len(shape)]
        return stored.permute([order.index(i) for i in range(len(shape))])

    def broadcast(*shape: int) -> tuple[int, ...]:
        return tuple(1 if draw(st.integers(0, 4)) == 0 else n for n in shape)

    query = random(*batch, group * heads_a_key, queries, size).to(dtype)
    key = random(*broadcast(*batch), group, keys, size).to(dtype)
    labels = random(*broadcast(*batch), keys, sources).softmax(-1)
    DEGENERATE[draw(st.sampled_from(sorted(DEGENERATE)))](query)
    kind = draw(st.sampled_from(["none", "causal", "boolean", "additive", "double"]))
    mask = None
    if kind not in ("none", "causal"):
        full = broadcast(*batch, group * heads_a_key, queries, keys)
        mask = random(*full[draw(st.integers(0, len(full) - 2)) :])
        hidden = mask > 0.5
        hidden[..., -1, :] = draw(st.booleans())  # a row that is masked whole
        mask = ~hidden if kind == "boolean" else mask.masked_fill(hidden, -math.inf)
        mask = mask.double() if kind == "double" else mask
    scale = draw(st.sampled_from([1 / math.sqrt(size), 0.37]))
    tensors = (None if t is None else t.to(device) for t in (query, key, labels, mask))
    return Case(*tensors, kind == "causal", scale)


def assert_mixes(result: Tensor, case: Case) -> None:
    assert result.dtype == torch.float32 and result.is_contiguous()
    expected = dense(case)
    torch.testing.assert_close(result.double(), expected, atol=3e-6, rtol=0)
    ones = torch.ones(result.shape[:-1], device=result.device)
    torch.testing.assert_close(result.sum(-1), ones, atol=1e-5, rtol=0)
    assert bool((result >= 0).all())


# On the processor.


@many
@given(
    case=cases((torch.float32, torch.bfloat16, torch.float16, torch.float64)),
    block=st.sampled_from([(2**17, 32), (200, 3), (1000, 2)]),
)
def test_blocks_give_the_dense_formula(case: Case, block: tuple[int, int]) -> None:
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(blockwise, "_SCORES_A_CORE", block[0])
        patch.setattr(blockwise, "_FEWEST_ROWS", block[1])
        patch.setattr(torch, "get_num_threads", lambda: 1)
        result = fused_attention.attend(*case)
    assert_mixes(result, case)


@few
@given(cases((torch.float32,)))
def test_lost_rows_without_looking(case: Case) -> None:
    """What runs on devices that must not be waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "_mixed", blockwise._mixed_with_lost_rows)
        assert_mixes(fused_attention.attend(*case), case)


def test_no_map_is_formed() -> None:
    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                self.elements = max(self.elements, result.untyped_storage().nbytes() // 4)
            return result

    query, labels = torch.randn(1, 1, 2, 2048, 3), torch.rand(1, 1, 2048, 2)
    with Largest() as largest, pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 1)
        blockwise.attend_in_blocks(query, query, labels, None, True, 1.0)
    assert 2048 < largest.elements <= blockwise._SCORES_A_CORE


# The kernel: on a GPU, or in Triton's interpreter, which takes bfloat16's bits for integers.

KERNEL_DTYPES = (torch.float32, torch.float16, torch.float64)


@TRITON
@pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="needs a GPU or TRITON_INTERPRET=1")
@settings(many, max_examples=20 if INTERPRETED else 200)
@given(cases(KERNEL_DTYPES if INTERPRETED else (*KERNEL_DTYPES, torch.bfloat16), DEVICE))
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_kernel_gives_the_dense_formula(case: Case) -> None:
    from labeltrace.fused_attention import operator, triton_launch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator, "attend_in_blocks", triton_launch.attend_with_triton)
        assert_mixes(fused_attention.attend(*case), case)


@TRITON
@pytest.mark.skipif(DEVICE != "cpu" or INTERPRETED, reason="the kernel itself is tested")
def test_kernel_in_the_interpreter() -> None:
    """Triton reads TRITON_INTERPRET when it is imported: a process of its own."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        __file__,
        "-k",
        "test_kernel_gives",
        "-p",
        "no:xdist",
    ]
    run = subprocess.run(
        command,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0 and "1 passed" in run.stdout, run.stdout + run.stderr


@TRITON
@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(
    ("capability", "dtype", "size", "sources", "mask"),
    [(80, "fp32", 256, 37, "additive"), (90, "bf16", 64, 2, "none")],
)
def test_kernel_compiles_and_fits_any_gpu(
    capability: int, dtype: str, size: int, sources: int, mask: str
) -> None:
    """No GPU is needed to compile for one.  Not all have more than 99 KiB of shared memory."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from labeltrace.fused_attention.triton_kernel import attend_kernel
    from labeltrace.fused_attention.triton_launch import FEW_SOURCES, blocks_for

    in_float32, few_sources = dtype == "fp32", sources <= FEW_SOURCES
    blocks = blocks_for(
        197, 197, size, sources, 256, masked=mask != "none", in_float32=in_float32, processors=132
    )
    constants: dict[str, Any] = {
        "HEAD_SIZE": size,
        "MASK": mask,
        "CAUSAL": False,
        "IN_FLOAT32": in_float32,
        "FEW_SOURCES": sources if few_sources else 0,
        "LABEL_PRECISION": "tf32x3",
        "ROWS": blocks.rows,
        "COLUMNS": blocks.columns,
        "FEATURES": blocks.features,
        "SOURCES": blocks.sources,
    } | ({"mask": None} if mask == "none" else {})
    pointers = dict.fromkeys(("query", "key", "mask"), f"*{dtype}")
    pointers |= {"labels": "*fp32", "result": "*fp32", "scale": "fp32"}
    names = attend_kernel.arg_names
    types = {n: "constexpr" if n in constants else pointers.get(n, "i32") for n in names}
    values = {(names.index(name),): value for name, value in constants.items()}
    compiled = triton.compile(
        ASTSource(fn=attend_kernel, signature=types, constexprs=values),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": blocks.warps, "num_stages": blocks.stages},
    )
    assert compiled.metadata.shared <= 99 * 2**10


# Compilers.


def example(batch: int, device: str = "cpu") -> Case:
    query, key = (torch.randn(batch, n, 3, 4, device=device).transpose(1, 2) for n in (5, 7))
    labels = torch.rand(batch, 7, 2, device=device).softmax(-1)
    return Case(query, key, labels, torch.randn(3, 1, 7, device=device), False, 0.5)


def by_name(query: Tensor, key: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
    return label_ops.attend(labels, query, key, "b h q k, b k -> b q", mask=mask, scale=0.5)


@pytest.mark.parametrize("case", [example(2), replace(example(2), mask=None, is_causal=True)])
def test_operator_keeps_what_torch_asks_of_it(case: Case) -> None:
    torch.library.opcheck(fused_attention.attend, tuple(case))


def test_compiled_whole_and_for_any_batch() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(by_name, fullgraph=True, backend=backend)
    for batch in (2, 3, 5, 7):
        inputs = list(example(batch))[:4]
        inputs[0].requires_grad_()
        result = compiled(*inputs)
        assert torch.equal(result, by_name(*inputs)) and not result.requires_grad
    assert len(graphs) <= 2


def test_exported() -> None:
    class Module(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return by_name(*inputs)

    batch = {0: Dim.DYNAMIC}
    exported = torch.export.export(
        Module(), tuple(example(2))[:4], dynamic_shapes=((batch, batch, batch, None),), strict=False
    )
    inputs = list(example(5))[:4]
    assert torch.equal(exported.module()(*inputs), by_name(*inputs))


@GPU
def test_in_a_cuda_graph() -> None:
    case = example(3, "cuda")
    expected = fused_attention.attend(*case)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = fused_attention.attend(*case)
    graph.replay()
    assert torch.equal(result, expected)


# Errors.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"labels": torch.ones(2, 7, 2, dtype=torch.float64)},
            "labels are float32, not torch.float64",
        ),
        ({"labels": torch.ones(2, 5, 2)}, "one label for each key"),
        ({"key": torch.ones(2, 2, 7, 4)}, "heads of keys do not divide those of queries"),
        ({"key": torch.ones(2, 3, 7, 5)}, "queries and keys differ in head size"),
        ({"key": torch.ones(2, 3, 7, 4, dtype=torch.int64)}, "queries and keys are floating, not"),
        ({"key": torch.ones(7, 4)}, "have too few dimensions"),
        ({"mask": torch.ones(5, 7, dtype=torch.int64)}, "a mask is boolean or floating, not"),
    ],
)
def test_errors_say_what_does_not_fit(change: dict[str, Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fused_attention.attend(*replace(example(2), **change))


# Axes by name.


@st.composite
def notations(draw: st.DrawFn) -> dict[str, Any]:
    """A map's axes by name, some made of several factors, and tensors for them."""
    letters = iter("abcdefghijklmn")

    def names(least: int, most: int) -> list[str]:
        return [next(letters) for _ in range(draw(st.integers(least, most)))]

    batch, rows_ahead, heads = names(0, 2), names(0, 1), names(0, 2)
    rows, heads_in_rows = names(1, 2), names(0, 1)
    columns, added, free = names(1, 2), names(0, 1), names(0, 1)
    used = [*batch, *rows_ahead, *heads, *rows, *heads_in_rows, *columns, *added, *free]
    sizes = dict(
        zip(used, draw(st.permutations([2, 3, 2, 1, 2, 3, 1, 2, 1, 1, 2, 1])), strict=False)
    )
    leading = draw(st.permutations([*batch, *rows_ahead, *heads]))
    joined = draw(st.integers(0, len(leading)))  # so many of them are one axis
    axes = [tuple(leading[:joined])] if joined > 1 else [(name,) for name in leading[:joined]]
    axes += [(name,) for name in leading[joined:]]
    axes += [tuple(draw(st.permutations(rows + heads_in_rows)))]
    axes += [tuple(draw(st.permutations(columns + added)))]
    text = " ".join(axis[0] if len(axis) == 1 else f"({' '.join(axis)})" for axis in axes)
    labels = draw(st.permutations([*batch, *columns, *free]))
    result = draw(st.permutations([*batch, *rows_ahead, *rows, *free]))
    given_sizes = {n: sizes[n] for axis in axes if len(axis) > 1 for n in axis[1:]}
    shape = [math.prod(sizes[name] for name in axis) for axis in axes]
    grouped = len(shape) > 2 and shape[-3] % 2 == 0 and draw(st.booleans())
    return {
        "notation": f"{text}, {' '.join(labels)} -> {' '.join(result)}",
        "sizes": given_sizes,
        "labels": [sizes[name] for name in labels],
        "shape": shape,
        "grouped": grouped,
        "broadcast": draw(st.sampled_from(["none", "query", "key"])),
        "mask": draw(st.sampled_from(["none", "rows", "heads", "whole"])),
    }


@many
@given(notations(), st.integers(0, 99))
def test_axes_by_name_as_written_out_attention(case: dict[str, Any], seed: int) -> None:
    torch.manual_seed(seed)
    *leading, queries, keys = case["shape"]
    query, key = torch.randn(*leading, queries, 5), torch.randn(*leading, keys, 5)
    if case["grouped"]:
        key = key[..., : leading[-1] // 2, :, :]
    elif case["broadcast"] == "key":
        key = key[0] if leading else key
    elif case["broadcast"] == "query" and leading:
        query = query[:1]
    mask = None
    if case["mask"] != "none":
        whole = (*leading, queries, keys)
        shapes = {"rows": (queries, 1), "heads": (*leading, 1, keys), "whole": whole}
        mask = torch.randn(shapes[case["mask"]])
        mask = mask.masked_fill(torch.rand_like(mask) < 0.2, -math.inf)
    labels = torch.rand(*case["labels"], 3).softmax(-1)
    arguments = {"mask": mask, "grouped_heads": case["grouped"]}
    result = label_ops.attend(labels, query, key, case["notation"], **arguments, **case["sizes"])
    every_key = key.repeat_interleave(2, -3) if case["grouped"] else key
    scores = query @ every_key.mT / math.sqrt(5) + (0 if mask is None else mask)
    expected = label_ops.mix(labels, scores.softmax(-1), case["notation"], **case["sizes"])
    torch.testing.assert_close(result, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("notation", ["h q k, h k -> q", "q k, q k -> q", "q (r k), k -> q r"])
def test_what_no_attention_mixes_is_refused(notation: str) -> None:
    with pytest.raises(ValueError, match="are in other places"):
        label_ops.attend(torch.ones(3, 1), torch.ones(3, 2), torch.ones(3, 2), notation, r=1)
