"""What is no model in Python, or wraps one, and models whose parameters cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import labeltrace
from labeltrace.runtime.engine_choice import EngineName

IMAGES = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
LABELS = torch.full((2, 2, 5, 7), 0.5)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())


def quantized() -> nn.Module:
    layer = nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 7, 4))
    return torch.ao.quantization.quantize_dynamic(layer, {nn.Linear})


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.jit.trace(network(), IMAGES), "it is a TorchScript module"),
        (lambda: torch.jit.script(network()), "align the module that torch.jit traced"),
        (
            lambda: nn.Sequential(nn.Identity(), torch.jit.script(network())),
            "its module 1 is a TorchScript module",
        ),
        (
            lambda: nn.DataParallel(network()),
            r"align first, then wrap: DataParallel\(labeltrace.align\(wrapped.module\)\)",
        ),
        (
            lambda: torch.compile(network(), backend="eager"),
            r"torch.compile\(labeltrace.align\(wrapped._orig_mod\)\)",
        ),
    ],
)
def test_what_has_no_python_code_of_its_own(make: Callable[[], nn.Module], words: str) -> None:
    model = make()
    for call in (labeltrace.align, lambda m: labeltrace.trace(m, IMAGES)):
        with pytest.raises(TypeError, match=words):
            call(model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), r"0 \(LazyConv2d\) has parameters without a"),
        (lambda: nn.Conv2d(3, 4, 3, device="meta"), "parameters on the meta device, without"),
        (quantized, r"1 \(Linear\) is quantized, and torch.export cannot read its packed weights"),
    ],
)
def test_parameters_that_cannot_be_read(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(labeltrace.CaptureError, match=words):
        labeltrace.trace(make(), IMAGES, engine="captured")


@pytest.mark.parametrize("engine", ["auto", "captured", "recorded"])
def test_parameters_without_values(engine: EngineName) -> None:
    aligned = labeltrace.align(nn.Conv2d(3, 4, 3, device="meta"), engine=engine)
    with pytest.raises(labeltrace.CaptureError, match="parameters on the meta device, without"):
        aligned(IMAGES, LABELS)


def test_a_lazy_module_is_captured_once_it_is_made() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3))
    aligned = labeltrace.align(model)
    aligned(IMAGES)
    assert aligned(IMAGES, LABELS)[1].shape == (2, 2, 3, 5)


class Failing(nn.Module):
    """A model that raises whatever it is called with."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.calls = 0

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


def own_error(images: Tensor) -> Tensor:
    raise ValueError("an error of its own")


@pytest.mark.parametrize("function", [own_error, lambda x: x @ torch.ones(11, 13), None])
def test_a_model_that_fails_itself(function: Callable[[Tensor], Any] | None) -> None:
    """Advice about branches and sizes would lead astray."""
    model = nn.ModuleList([network()]) if function is None else Failing(function)
    with pytest.raises(Exception) as plain:
        model(IMAGES)
    with pytest.raises(type(plain.value)) as own:
        labeltrace.align(model)(IMAGES, LABELS)
    assert str(own.value) == str(plain.value)
    with pytest.raises(labeltrace.CaptureError) as caught:
        labeltrace.align(model, IMAGES)
    message = str(caught.value)
    assert str(plain.value).splitlines()[0] in message
    assert "The model itself fails on these inputs, without labels too" in message
    assert "no branch or size" not in message


def test_a_model_that_only_an_export_stops() -> None:
    model = Failing(lambda x: x if float(x.sum()) > 0 else -x)
    with pytest.raises(labeltrace.CaptureError) as caught:
        labeltrace.align(model, IMAGES, engine="captured")
    assert "no branch or size may depend on the values of tensors" in str(caught.value)
    assert 'engine="recorded"' in str(caught.value)


def test_a_buffer_of_another_shape_is_captured_again() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.rand(3, 5, 7))

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) + self.table.flatten().repeat(105 // self.table.numel())

    model = Shifted()
    aligned = labeltrace.align(model)
    for shape in ((3, 5, 7), (5, 7), (3, 1, 7)):
        model.table = torch.rand(shape)
        outputs, labels = aligned(IMAGES, LABELS)
        assert torch.equal(outputs, model(IMAGES))
        assert labels.shape == (2, 2)
