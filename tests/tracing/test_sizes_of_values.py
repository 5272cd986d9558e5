"""Sizes and numbers that depend on values: an error that says where, or the right labels."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import labeltrace
from labeltrace.layout import input_layout
from labeltrace.tracing import outputs as traced_outputs

IMAGES = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
LABELS = torch.rand(2, 2, 5, 7, generator=torch.Generator().manual_seed(1)).softmax(1)


class Masked(nn.Module):
    """A function of the images beside a constant mask of their 35 tokens."""

    def __init__(self, function: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("mask", torch.arange(35) % 3 != 1)

    def forward(self, images: Tensor) -> Any:
        return self.function(self, images)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).mT


def kept_tokens(self: Any, x: Tensor) -> Tensor:
    return tokens(x)[self.mask.expand(len(x), 35)].view(len(x), -1, 3)


def bright_tokens(self: Any, x: Tensor) -> Tensor:
    return tokens(x)[tokens(x).mean(2) > 0.5]


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "tokens kept by a mask": (kept_tokens, "aten.view"),
    "bright tokens": (bright_tokens, "aten.index"),
    "flattened": (lambda self, x: x.flatten(2)[:, :, self.mask].flatten(1), "aten.flatten"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_size_that_cannot_be_followed(name: str) -> None:
    function, operator = REFUSED[name]
    model = Masked(function)
    model(IMAGES)
    with pytest.raises(labeltrace.LayoutError) as caught:
        labeltrace.trace(model, IMAGES, engine="captured")
    message = str(caught.value)
    assert f"= {operator}: a size or number that it returns depends on the values" in message
    assert message.count("depends on the values") == 1  # what follows from it is not named again
    assert 'align(model, engine="recorded")' in message
    assert re.search(rf"\(Masked\), {re.escape(__file__)}:\d+: ", message)


@pytest.mark.parametrize("of_image", [True, False])
def test_values_that_are_selected_keep_the_labels_of_their_places(of_image: bool) -> None:
    model = Masked(
        lambda self, x: x.flatten(2).masked_select(x.flatten(2) > 0.5 if of_image else self.mask)
    )
    outputs, labels = labeltrace.align(model)(IMAGES, LABELS)
    chosen = IMAGES.flatten(2) > 0.5 if of_image else model.mask.expand(IMAGES.flatten(2).shape)
    rows = LABELS.flatten(2).mT[:, None].expand(-1, IMAGES.shape[1], -1, -1)
    assert torch.equal(outputs, model(IMAGES))
    torch.testing.assert_close(labels, rows[chosen])


def test_indices_carry_no_label() -> None:
    outputs, labels = labeltrace.align(Masked(lambda self, x: (x > 0.5).nonzero()))(IMAGES, LABELS)
    assert outputs.shape[1] == 4
    assert labels is None


FOLLOWED: dict[str, tuple[Callable[[Any, Tensor], Any], Callable[[Tensor, Tensor], Tensor]]] = {
    "selected": (
        lambda self, x: x.flatten(2)[:, :, self.mask].relu(),
        lambda y, mask: y.flatten(2)[:, :, mask],
    ),
    "pooled": (
        lambda self, x: x.flatten(2)[:, :, self.mask].mean(2),
        lambda y, mask: y.flatten(2)[:, :, mask].mean(2),
    ),
    "added": (
        lambda self, x: x.flatten(2)[:, :, self.mask] + x.flip(3).flatten(2)[:, :, self.mask],
        lambda y, mask: (y + y.flip(3)).flatten(2)[:, :, mask] / 2,
    ),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_constant_mask_is_followed(name: str) -> None:
    function, expected = FOLLOWED[name]
    model = Masked(function)
    outputs, labels = labeltrace.align(model)(IMAGES, LABELS)
    assert torch.equal(outputs, model(IMAGES))
    torch.testing.assert_close(labels, expected(LABELS, model.mask))


def test_a_label_of_another_shape_than_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule may return one; the outputs are checked once more, whatever computed them."""
    real = traced_outputs.OutputReader._check_shape

    def smaller(self: Any, name: str, value: Any) -> None:
        real(self, name, replace(value, layout=input_layout((2, 3, 5, 6), 1)))

    monkeypatch.setattr(traced_outputs.OutputReader, "_check_shape", smaller)
    with pytest.raises(labeltrace.LayoutError, match="the label of an output has another shape"):
        labeltrace.trace(nn.ReLU(), IMAGES)
