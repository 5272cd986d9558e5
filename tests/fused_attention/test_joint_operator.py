"""Labels that compiled code has the model's attention call compute, and where it must not."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from labeltrace import label_ops
from labeltrace.fused_attention import flash_with_labels, joint_operator
from tests.helpers.attention_calls import NOTATION, ON_X86, Inputs, compare, inputs_of


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@contextlib.contextmanager
def calls() -> Iterator[list[str]]:
    """Which ways compiled code takes while it runs: joint or separate labels."""
    taken: list[str] = []
    mixed_jointly, attend = joint_operator.mixed_jointly, joint_operator.attend

    def joint(*args: Any) -> Any:
        found = mixed_jointly(*args)
        taken.extend(["joint"] if found is not None else [])
        return found

    def separate(*args: Any) -> Any:
        taken.append("separate")
        return attend(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint_operator, "mixed_jointly", joint)
        patch.setattr(joint_operator, "attend", separate)
        yield taken


def check(inputs: Inputs, scale: float | None = None, backend: str = "aot_eager") -> list[str]:
    """Outputs and gradients are those of the plain call, labels those of the formula."""

    def both(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        return label_ops.attention_with_labels(*inputs, NOTATION, scale=scale)

    run = torch.compile(both, fullgraph=True, backend=backend)
    with torch.no_grad():
        run(*inputs)  # code is made, which calls operators without values
    run(*inputs)
    with calls() as taken:
        found = run(*inputs)
    compare(inputs, found, scale)
    return taken


@ON_X86
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("scale", [None, 0.37])
def test_the_scores_are_computed_once(backend: str, scale: float | None) -> None:
    assert check(inputs_of(37, 71, 64), scale, backend) == ["joint"]


def test_what_the_call_cannot_do_is_found_out_when_the_code_runs() -> None:
    """Rows that are not aligned, and rows without a softmax."""
    lost = inputs_of(41, 43)
    with torch.no_grad():
        lost[1][0, 1, 2, 3] = math.nan
    for inputs in (inputs_of(39, keys=513, size=24), lost):
        assert check(inputs) == ["separate"]


@pytest.mark.parametrize(
    "inputs",
    [
        inputs_of(31),
        inputs_of(keys=31),
        inputs_of(sources=17),
        (*inputs_of()[:3], inputs_of(size=48)[3]),
    ],
)
def test_few_tokens_many_columns_and_wider_values_are_computed_separately(inputs: Inputs) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint_operator, "attention_and_labels", None)
        check(inputs)


def test_another_kernel_is_kept() -> None:
    with sdpa_kernel(SDPBackend.MATH), pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint_operator, "attention_and_labels", None)
        check(inputs_of())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_transforms_of_functions_see_the_plain_call(backend: str) -> None:
    labels, query, key, value = (tensor.detach() for tensor in inputs_of())

    def total(query: Tensor) -> Tensor:
        return (
            label_ops.attention_with_labels(labels, query, key, value, NOTATION)[0].square().sum()
        )

    query.requires_grad_()
    (expected,) = torch.autograd.grad(total(query), query)
    found = torch.compile(torch.func.grad(total), fullgraph=True, backend=backend)(query.detach())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("inputs", [inputs_of(37, 71), inputs_of(sources=17)])
def test_the_operator_keeps_the_contract_of_operators(inputs: Inputs) -> None:
    labels, *tensors = inputs
    torch.library.opcheck(joint_operator.attention_and_labels, (*tensors, labels, 0.37))
    with torch.no_grad():
        output, normalizers, _ = joint_operator.attention_and_labels(*tensors, labels, 0.37)
        plain = flash_with_labels.plain_flash_call(*tensors, 0.37)
    assert torch.equal(output, plain[0]) and torch.equal(normalizers, plain[1])
