"""`torch.compile(aligned)`: one graph for all sizes of the batch, and eager's labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace
from labeltrace.runtime import torch_compile
from tests.helpers.compiled_models import inputs, small


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    """How many graphs were compiled; none may have been broken off."""
    assert not torch._dynamo.utils.counters["graph_break"]
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def step(forward: Callable[..., Any], model: nn.Module, batch: int) -> dict[str, Tensor]:
    """All that a training step leaves behind, from one random state."""
    model.zero_grad()
    torch.manual_seed(0)
    outputs, labels = forward(*inputs(batch))
    outputs["logits"].square().sum().backward()
    found = {f"gradient of {n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    found |= {name: buffer.clone() for name, buffer in model.named_buffers()}
    found |= {"logits": outputs["logits"], "labels": labels["logits"], "of maps": labels["maps"][0]}
    assert not labels["logits"].requires_grad
    return {name: value.detach() for name, value in found.items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5, msg=name)


def test_training_steps_of_any_batch_share_two_graphs() -> None:
    model, plain = small(), small()
    eager = labeltrace.align(plain)
    compiled = torch.compile(labeltrace.align(model), fullgraph=True, backend="aot_eager")
    for batch in (3, 5, 2, 7, 11):
        same(step(compiled, model, batch), step(eager, plain, batch))
    assert graphs() == 2


def test_changes_of_the_model_are_followed() -> None:
    model = small()
    aligned = labeltrace.align(model)
    compiled = torch.compile(aligned, fullgraph=True, backend="eager")

    def both(expected_graphs: int) -> None:
        reference = labeltrace.align(copy.deepcopy(model))
        same(step(compiled, model, 3), step(reference, reference.module, 3))
        assert graphs() == expected_graphs

    both(1)
    model.eval()
    both(2)
    model.train()
    both(2)
    model.norm.eval()
    both(3)
    model.dropout.p = 0.7
    both(4)
    model.mixing = nn.Identity()
    both(5)
    both(5)


def test_a_copy_has_graphs_of_its_own() -> None:
    aligned = labeltrace.align(small().eval())
    aligned(*inputs(3))
    other = copy.deepcopy(aligned)
    other.head.weight.data.zero_()
    compiled = torch.compile(other, fullgraph=True, backend="eager")
    same(step(compiled, other, 3), step(other, other, 3))
    assert other._engines.graphs.model is other.module and len(other._engines.graphs.graphs) == 1


def test_arguments_and_sizes_that_a_model_treats_apart() -> None:
    class Apart(nn.Module):
        def forward(self, x: Tensor, factor: Tensor, *, flip: bool = False) -> Tensor:
            x = F.avg_pool2d(x, 2) * factor
            return x.flip(-1) if flip or x.shape[0] > 4 else x

    aligned = labeltrace.align(Apart())
    compiled = torch.compile(aligned, fullgraph=True, backend="eager")
    for batch in (2, 3, 5, 1, 6):
        for flip in (False, True):
            images, labels = inputs(batch)
            given = (images, labels, torch.tensor(2.0))
            for found, expected in zip(
                compiled(*given, flip=flip), aligned(*given, flip=flip), strict=True
            ):
                assert torch.equal(found, expected)
    graphs()


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 3, 2, 1)

    def forward(self, x: Tensor, factor: float | Tensor = 1) -> Tensor:
        return (self.layer(x) * factor).mean((2, 3))


# What differs between two calls of one function, torch leaves open in the code that it makes next.
CALLS: dict[str, list[tuple[Any, ...]]] = {
    "sizes of images": [inputs(3, *size) for size in ((), (8,), (8, 12), (11, 13), ())],
    "sources": [inputs(3, sources=sources) for sources in (3, 2, 7, 1, 41)],
    "whole numbers": [(*inputs(3), factor) for factor in (2, 3, 5, -4)],
    "other numbers": [(*inputs(3), factor) for factor in (0.5, 1.5, -2.5)],
    "sizes of an argument": [(*inputs(3), torch.rand(size, 1, 1)) for size in (5, 1, 5)],
}


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("one_model", [True, False])
def test_whatever_differs_between_calls(calls: list[tuple[Any, ...]], one_model: bool) -> None:
    """Several models share what torch knows of calls: it is that of one line of code."""
    aligned = labeltrace.align(Scaled())
    for arguments in calls:
        aligned = aligned if one_model else labeltrace.align(Scaled())
        compiled = torch.compile(aligned, fullgraph=True, backend="eager")
        for found, expected in zip(compiled(*arguments), aligned(*arguments), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    graphs()


@pytest.mark.skipif(
    torch.__version__ < (2, 14),
    reason="torch 2.11 traces no regions under autocast of a graph's own",
)
def test_regions_under_other_modes() -> None:
    class Regions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                x = self.layer(x)
            with torch.no_grad():
                shift = x.float().mean()
            return (x.float() - shift).mean((2, 3))

    aligned = labeltrace.align(Regions())
    compiled = torch.compile(aligned, fullgraph=True, backend="eager")
    for found, expected in zip(compiled(*inputs(3)), aligned(*inputs(3)), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert graphs() == 1
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_unsound_labels_are_refused() -> None:
    compiled = torch.compile(labeltrace.align(small()), fullgraph=True, backend="eager")
    images, labels = inputs(3)
    with pytest.raises(RuntimeError, match="sum to one"):
        compiled(images, labels * 2)


def test_a_model_that_changes_while_it_is_traced_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graphs = labeltrace.align(small())._engines.graphs
    first, *others = torch_compile._present_state(id(graphs))
    monkeypatch.setattr(torch_compile, "_present_state", lambda _: ((0, *first[1:]), *others))
    with pytest.raises(RuntimeError, match=r"the model was changed while torch\.compile traced it"):
        torch_compile._guard_model(graphs)


def test_inductor() -> None:
    model, plain = small().eval(), small().eval()
    compiled = torch.compile(labeltrace.align(model), fullgraph=True)
    same(step(compiled, model, 3), step(labeltrace.align(plain), plain, 3))
    assert graphs() == 1
