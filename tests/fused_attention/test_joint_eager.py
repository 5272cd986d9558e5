"""Labels mixed by the model's own attention call, whose output and gradients stay as they are."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import labeltrace
from labeltrace import label_ops
from labeltrace.fused_attention import bitwise_check, flash_with_labels, joint_eager
from labeltrace.label_ops import attention
from tests.helpers.attention_calls import NOTATION, ON_X86, Inputs, compare, dense, inputs_of
from tests.helpers.code_module import from_expression


@contextlib.contextmanager
def counted() -> Iterator[list[int]]:
    """How many columns of labels each joint call had, without random trials."""
    columns: list[int] = []
    apply = joint_eager._AttentionWithLabels.apply

    def counting(*args: Any) -> Any:
        columns.append(args[3].shape[-1])
        return apply(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint_eager._AttentionWithLabels, "apply", counting)
        yield columns


def check(inputs: Inputs, scale: float | None = None) -> list[int]:
    """Outputs, strides, gradients and labels are right, whichever way was taken."""
    with counted() as columns:
        found = label_ops.attention_with_labels(*inputs, NOTATION, scale=scale)
    compare(inputs, found, scale)
    return columns


@torch.no_grad()
def let_last_key_prevail(inputs: Inputs) -> None:
    """It may be the remainder key of the kernel's blocks; then it dominates all sums."""
    inputs[2][:, :, -1] *= 4
    inputs[3][:, :, -1] *= 1e4


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(
    st.sampled_from((1, 13, 33, 65, 67, 257, 577, 600)),
    st.sampled_from((1, 37, 71, 513, 530)),
    st.sampled_from((16, 24, 31, 32, 64)),
    st.sampled_from((1, 2, 8, 43)),
    st.permutations((0, 1, 2)),
    st.sampled_from((None, 0.37)),
    st.sampled_from((1, 2)),
)
def test_output_and_gradients_stay_what_they_are(
    queries: int,
    keys: int,
    size: int,
    sources: int,
    order: list[int],
    scale: float | None,
    threads: int,
) -> None:
    inputs = inputs_of(queries, keys, size, sources, (*order, 3))
    let_last_key_prevail(inputs)
    before = torch.get_num_threads()
    bitwise_check._strides_if_equal_in_trials.cache_clear()
    torch.set_num_threads(threads)
    try:
        check(inputs, scale)
    finally:
        torch.set_num_threads(before)


@ON_X86
@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("tokens", [33, 37, 197, 257])
def test_the_scores_are_computed_once(
    tokens: int, gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention.fused_attention, "attend", None)
    with torch.set_grad_enabled(gradient):
        assert check(inputs_of(tokens, tokens, 64)) == [2]


@ON_X86
def test_a_remainder_key_is_computed_jointly_if_its_score_stays_equal() -> None:
    """It does with AVX2; with AVX-512, MKL adds up its products in another order."""
    inputs = inputs_of(513, 513, 64)
    let_last_key_prevail(inputs)
    labels, *tensors = (tensor.detach() for tensor in inputs)
    plain, _ = flash_with_labels.plain_flash_call(*tensors)
    found, *_ = flash_with_labels.flash_call_with_labels(*tensors, labels, None, plain.stride())
    assert check(inputs) == ([2] if torch.equal(found, plain) else [])


@pytest.mark.parametrize(
    "inputs",
    [
        inputs_of(sources=17),
        inputs_of(keys=513, size=24),
        inputs_of(queries=31),
        inputs_of(keys=31),
        (*inputs_of()[:3], inputs_of()[3].mT.contiguous().mT),
    ],
)
def test_many_columns_few_tokens_and_unaligned_memory_are_computed_separately(
    inputs: Inputs,
) -> None:
    assert check(inputs) == []


def test_where_the_kernel_would_add_up_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried on random numbers decides."""
    bitwise_check._strides_if_equal_in_trials.cache_clear()
    run = bitwise_check.flash_call_with_labels

    def otherwise(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
        output, normalizers, mixed = run(*args, **kwargs)
        return output.nextafter(output + 1), normalizers, mixed

    monkeypatch.setattr(bitwise_check, "flash_call_with_labels", otherwise)
    assert check(inputs_of()) == []
    bitwise_check._strides_if_equal_in_trials.cache_clear()


@ON_X86
def test_a_remainder_query_has_the_plain_calls_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the call with further columns makes of it; a trial could not tell."""
    bitwise_check._strides_if_equal_in_trials.cache_clear()
    kernel = flash_with_labels._kernel

    def otherwise(query: Tensor, *others: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
        output, normalizers = kernel(query, *others, scale=scale)
        if query.shape[-1] == 66:
            output[:, :, -1, :64] += 1
            normalizers[:, :, -1] += 1
        return output, normalizers

    monkeypatch.setattr(flash_with_labels, "_kernel", otherwise)
    assert check(inputs_of(65, 71, 64)) == [2]
    assert check(inputs_of(66, 71, 64)) == []
    bitwise_check._strides_if_equal_in_trials.cache_clear()


def test_a_remainder_key_dominates_in_some_trials() -> None:
    """Its single score would hardly tell among 512 others."""
    layouts = [
        bitwise_check._MemoryLayout((1, 2, tokens, 64), (0, 64, 128, 1), 0, 0)
        for tokens in (37, 513)
    ]
    found = bitwise_check._random_inputs((layouts[0], layouts[1], layouts[1]), torch.Generator())
    scales = [value[:, :, -1].std() / value[:, :, :-1].std() for _, _, value in found]
    assert sum(scale > 1000 for scale in scales) == 32  # of two heads each
    assert sum(scale < 2 for scale in scales) == 28


@ON_X86
@pytest.mark.parametrize("of_labels", ["b k", "k b"])
@pytest.mark.parametrize("of_result", ["b q", "q b"])
def test_axes_by_name_in_any_order(of_labels: str, of_result: str) -> None:
    labels, *tensors = inputs_of(41, samples=37)  # as many as keys: sizes do not distinguish them
    expected = label_ops.attention_with_labels(labels, *tensors, "b h q k, b k -> b q")[1]
    given = labels if of_labels == "b k" else labels.transpose(0, 1)
    notation = f"b h q k, {of_labels} -> {of_result}"
    with counted() as columns:
        found = label_ops.attention_with_labels(given, *tensors, notation)[1]
    assert columns == [2]
    assert torch.equal(found if of_result == "b q" else found.transpose(0, 1), expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e38, -1e38, -3e38])
def test_rows_without_a_softmax_mix_equally(value: float) -> None:
    inputs = inputs_of()
    with torch.no_grad():
        inputs[1][0, 1, 2, 3] = value
        inputs[2].abs_()
        check(inputs)
        mixed = label_ops.attention_with_labels(*inputs, NOTATION)[1]
    torch.testing.assert_close(mixed.sum(-1), torch.ones(5, 37))


@ON_X86
@pytest.mark.parametrize("value", [0.0, math.nan, math.inf, 1e37])
@pytest.mark.parametrize("last", [True, False])
def test_memory_after_the_keys_changes_nothing(value: float, last: bool) -> None:
    """Heads of one sample are interleaved in memory; the values follow the last head."""
    labels, query, *_ = inputs_of()
    memory = torch.randn(5, 37, 2, 3, 32, generator=torch.Generator().manual_seed(0))
    memory[3, 5, 1 if last else 0, 0 if last else 1, 1] = value
    keys, values = memory.requires_grad_().transpose(1, 3).unbind(2)
    assert flash_with_labels.trailing_elements(keys) == 3 * 32
    assert (
        flash_with_labels.trailing_elements(
            bitwise_check._MemoryLayout.of(keys, 2).random(torch.Generator())
        )
        == 2
    )
    assert flash_with_labels._extend_view(keys, 2).data_ptr() == keys.data_ptr()
    assert check((labels, query, keys, values)) == [2]


SETTINGS: dict[str, tuple[torch.dtype, Callable[[], contextlib.AbstractContextManager[Any]]]] = {
    "float64": (torch.float64, contextlib.nullcontext),
    "bfloat16": (torch.bfloat16, contextlib.nullcontext),
    "autocast": (torch.float32, lambda: torch.autocast("cpu", torch.bfloat16)),
    "another kernel": (torch.float32, lambda: sdpa_kernel(SDPBackend.MATH)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_other_types_and_modes_are_computed_separately(name: str) -> None:
    dtype, mode = SETTINGS[name]
    labels, *tensors = inputs_of()
    query, key, value = (tensor.detach().to(dtype).requires_grad_() for tensor in tensors)
    with counted() as columns, mode():
        output, mixed = label_ops.attention_with_labels(labels, query, key, value, NOTATION)
        plain = F.scaled_dot_product_attention(query, key, value)
    assert columns == []
    assert output.dtype == plain.dtype and torch.equal(output, plain)
    torch.testing.assert_close(mixed, dense(labels, query, key).detach(), atol=2e-6, rtol=0)


def test_heads_that_are_kept_are_computed_separately() -> None:
    labels, query, key, value = (tensor.detach() for tensor in inputs_of())
    with counted() as columns:
        _, mixed = label_ops.attention_with_labels(
            labels, query, key, value, "b h q k, b k -> b h q"
        )
    assert columns == []
    maps = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)
    torch.testing.assert_close(mixed, maps @ labels[:, None], atol=2e-6, rtol=0)


def test_transforms_of_functions_see_the_plain_call() -> None:
    labels, query, key, value = (tensor.detach() for tensor in inputs_of())

    def total(query: Tensor) -> Tensor:
        return (
            label_ops.attention_with_labels(labels, query, key, value, NOTATION)[0].square().sum()
        )

    query.requires_grad_()
    expected = torch.autograd.grad(total(query), query)[0]
    with counted() as columns:
        found = torch.func.grad(total)(query.detach())
    assert columns == []
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_who_looks_at_operators_sees_the_plain_call() -> None:
    class Kernels(TorchDispatchMode):
        """The last sizes of what fused attention is called with."""

        def __init__(self) -> None:
            super().__init__()
            self.sizes: list[int] = []

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if "flash_attention" in str(func):
                self.sizes.append(args[0].shape[-1])
            return func(*args, **(kwargs or {}))

    inputs = inputs_of(size=32)
    with Kernels() as plain:
        F.scaled_dot_product_attention(*inputs[1:])
    with Kernels() as found:
        label_ops.attention_with_labels(*inputs, NOTATION)
    assert found.sizes == plain.sizes == [32]


@ON_X86
def test_another_default_device_changes_nothing() -> None:
    inputs = inputs_of(39)
    with torch.device("meta"), counted() as columns, torch.no_grad():
        output, mixed = label_ops.attention_with_labels(*inputs, NOTATION)
    assert columns == [2] and {output.device.type, mixed.device.type} == {"cpu"}


def test_second_derivatives_are_refused_as_by_the_plain_call() -> None:
    inputs = inputs_of()
    output = label_ops.attention_with_labels(*inputs, NOTATION)[0]
    plain = F.scaled_dot_product_attention(*inputs[1:])
    for one in (output, plain):
        (gradient,) = torch.autograd.grad(one.square().sum(), inputs[1], create_graph=True)
        with pytest.raises(RuntimeError):
            gradient.sum().backward()


# Which calls of a model may compute labels.


class Attention(nn.Module):
    """Attention whose heads are channels."""

    def __init__(self, code: str, checkpointed: bool = False) -> None:
        super().__init__()
        self.layer = from_expression(code)
        self.checkpointed = checkpointed

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).mT.unflatten(2, (3, 16)).transpose(1, 2)
        x = checkpoint(self.layer, x, use_reentrant=False) if self.checkpointed else self.layer(x)
        return x.transpose(1, 2).flatten(2)


class BetweenCheckpoints(nn.Module):
    """Attention directly after a checkpointed layer and directly before another."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(48, 48), nn.Linear(48, 48)])

    def forward(self, x: Tensor) -> Tensor:
        def heads(x: Tensor) -> Tensor:
            return self.layers[0](x.flatten(2).mT).unflatten(2, (3, 16)).transpose(1, 2).sin()

        def merged(x: Tensor) -> Tensor:
            return self.layers[1](x.transpose(1, 2).flatten(2)).sin()

        x = checkpoint(heads, x, use_reentrant=False)
        return checkpoint(merged, F.scaled_dot_product_attention(x, x, x), use_reentrant=False)


def test_between_checkpointed_layers() -> None:
    model, images = BetweenCheckpoints(), torch.randn(2, 48, 5, 7)
    aligned = labeltrace.align(model)
    labels = torch.rand(2, 3, 5, 7).softmax(1)
    outputs, mixed = aligned(images, labels)
    assert "attention_with_labels(" in aligned.label_code()
    found = torch.autograd.grad(outputs.square().sum(), list(model.parameters()))
    right = torch.autograd.grad(model(images).square().sum(), list(model.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(found, right, strict=True))
    torch.testing.assert_close(mixed.sum(-1), torch.ones(2, 35))


COMPUTED_JOINTLY = {
    "F.scaled_dot_product_attention(x, x, x)": True,
    "F.scaled_dot_product_attention(x, x + 1, x * 2, scale=0.1)": True,
    "F.scaled_dot_product_attention(x, x, x, is_causal=True)": False,
    "F.scaled_dot_product_attention(x, x, x, dropout_p=0.3)": False,
    "F.scaled_dot_product_attention(x, x, x, torch.ones(35, 35).tril().bool())": False,
    "F.scaled_dot_product_attention(x, x[:, :1], x[:, :1], enable_gqa=True)": False,
    "F.scaled_dot_product_attention(x, x, x)[:, :, :1]": False,
}


@pytest.mark.parametrize("code", COMPUTED_JOINTLY)
@pytest.mark.parametrize("checkpointed", [False, True])
def test_calls_that_compute_labels(code: str, checkpointed: bool) -> None:
    model, images = Attention(code, checkpointed), torch.randn(2, 48, 5, 7)
    aligned = labeltrace.align(model)
    labels = torch.rand(2, 3, 5, 7).softmax(1)
    torch.manual_seed(0)
    outputs, mixed = aligned(images, labels)
    torch.manual_seed(0)
    assert torch.equal(outputs, model(images))
    torch.testing.assert_close(mixed.sum(-1), torch.ones(2, mixed.shape[1]))
    assert ("attention_with_labels(" in aligned.label_code()) is (
        COMPUTED_JOINTLY[code] and not checkpointed
    )
