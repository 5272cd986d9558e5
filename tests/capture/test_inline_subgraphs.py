"""Regions under autocast or without gradient: labels ride along, the forward half stays exact."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import labeltrace


class Regions(nn.Module):
    """A convolution in full precision, a gate without gradient, one region inside another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.second = nn.Conv2d(5, 5, 1)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        with torch.autocast(x.device.type, enabled=False):
            x = self.second(x.float()).relu()
        with torch.no_grad():
            gate = x.sigmoid()
            with torch.autocast(x.device.type, dtype=torch.bfloat16):
                scale = self.second(gate).mean((2, 3))
        return self.head((x * gate).mean((2, 3)) * scale)


def label_image() -> Tensor:
    labels = torch.rand(2, 2, 7, 5, generator=torch.Generator().manual_seed(1))
    return labels / labels.sum(1, keepdim=True)


@pytest.mark.parametrize("autocast", [False, True])
def test_regions_keep_outputs_and_gradients(autocast: bool) -> None:
    model, image = Regions(), torch.randn(2, 3, 7, 5)
    aligned = labeltrace.align(model)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        outputs, labels = aligned(image, label_image())
        plain = model(image)
    assert torch.equal(outputs, plain)
    assert outputs.dtype == plain.dtype
    ours, theirs = (
        torch.autograd.grad(result.float().square().sum(), list(model.parameters()))
        for result in (outputs, plain)
    )
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert labels.dtype == torch.float32
    torch.testing.assert_close(labels.sum(1), torch.ones(2))
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_labels_are_those_of_the_model_without_regions() -> None:
    class Plain(Regions):
        def forward(self, x: Tensor) -> Tensor:
            x = self.second(self.first(x)).relu()
            return self.head((x * x.sigmoid()).mean((2, 3)))

    model, image = Regions(), torch.randn(2, 3, 7, 5)
    plain = Plain()
    plain.load_state_dict(model.state_dict())
    ours, theirs = (labeltrace.align(m)(image, label_image())[1] for m in (model, plain))
    torch.testing.assert_close(ours, theirs)


def test_the_modes_are_as_before_when_a_region_fails() -> None:
    class Gated(Regions):
        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).mean((2, 3))
            with torch.no_grad():
                gate = self.head(x).sigmoid()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.head(x) * gate

    model = Gated()
    aligned = labeltrace.align(model, torch.randn(2, 3, 7, 5))
    for broken, error in ((torch.randn(4, 9), "shape"), (torch.randn(4, 5), "dtype")):
        model.head.weight.data = broken
        if error == "dtype":
            model.head.bias.data = model.head.bias.data[:3]  # fails under autocast as well
        refused = pytest.raises((RuntimeError, labeltrace.CaptureError))
        with torch.autocast("cpu", enabled=False), refused:
            aligned(torch.randn(2, 3, 7, 5), label_image())
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
    torch.autocast_increment_nesting()
    assert torch.autocast_decrement_nesting() == 0


def test_a_branch_at_run_time_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))

    with pytest.raises(labeltrace.CaptureError, match="branches or loops inside"):
        labeltrace.align(Branching(), torch.randn(2, 3, 7, 5))
    with pytest.raises(
        labeltrace.CaptureError, match="whose branches or loops run inside the operator; write"
    ):
        labeltrace.align(Branching(), torch.randn(2, 3, 7, 5), engine="recorded")
