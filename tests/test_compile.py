"""`torch.compile(aligned)`: one graph for all sizes of the batch, and eager's labels.

`Tiny` and the small models here hold what models do that could break a graph: statistics written in
place, dropout, attention, windows, nested outputs, regions under autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

from tests.families import FAMILIES

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def graphs_compiled() -> int:
    assert not torch._dynamo.utils.counters["graph_break"]
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def inputs(batch: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    labels = torch.rand(batch, 3, *size, generator=generator).square()
    return torch.randn(batch, 3, *size, generator=generator), labels / labels.sum(1, keepdim=True)


def step(forward: Callable[..., Any], model: nn.Module, *given: Any) -> dict[str, Tensor]:
    """Outputs, labels and gradients of one training step, from one random state."""
    model.zero_grad()
    torch.manual_seed(0)
    outputs, labels = forward(*given)
    outputs.square().sum().backward()
    assert not labels.requires_grad
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"outputs": outputs.detach(), "labels": labels, **gradients}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.abs().max()) if name != "labels" else 1.0
        torch.testing.assert_close(found[name], value, atol=1e-5 * max(scale, 1.0), rtol=0)


def family(name: str) -> Any:
    return next(family for family in FAMILIES if family.name == name)
