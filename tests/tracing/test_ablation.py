"""Ablations of the alignment, Table 8: against attention written out, and against each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from labeltrace import Ablation, LabelError, align, labels_at
from labeltrace.inspection.places import with_outputs_at
from labeltrace.tracing.ablation import ablated
from tests.helpers.small_models import (
    SIZE,
    SIZES,
    attention_maps,
    observed_model,
    small_mixer,
    small_swin,
    small_vit,
)

generator = torch.Generator().manual_seed(13)


def inputs(height: int, width: int) -> tuple[Tensor, Tensor]:
    images = torch.randn(2, 3, height, width, generator=generator)
    return images, torch.rand(2, 3, height, width, generator=generator).softmax(1)


@pytest.mark.parametrize(
    ("ablation", "mixed", "residual"),
    [
        (Ablation(), (0, 1, 2), True),
        (Ablation(layers=["blocks.0", "blocks.2.attn"]), (0, 2), True),
        (Ablation(layers=["blocks.[01]"]), (0, 1), True),
        (Ablation(last_layer=True), (2,), True),
        (Ablation(last_layer=True, residual=False), (2,), False),
        (Ablation(residual=False), (0, 1, 2), False),
    ],
)
def test_vit(ablation: Ablation, mixed: tuple[int, ...], residual: bool) -> None:
    model, (images, labels) = small_vit(), inputs(*SIZE)
    prior = labels.double().mean((2, 3))
    patches = functional.avg_pool2d(labels.double(), 4).flatten(2).mT
    tokens = torch.cat([prior[:, None], patches], 1)
    for layer, attention in enumerate(attention_maps(model, images)):
        if layer in mixed:
            moved = attention @ tokens
            tokens = (tokens + moved) / 2 if residual else moved
    observer = observed_model(small_vit)
    changed = with_outputs_at(
        ablated(observer.trace, ablation), observer.find_places(["output"]).values()
    )
    (found,) = observer.run(changed, images, labels)
    torch.testing.assert_close(found[:, 0], tokens[:, 0].float())


@pytest.mark.parametrize(
    ("make", "layer"), [(small_mixer, "blocks.0"), (small_swin, "layers.0.blocks.0")]
)
def test_layers_left_out_keep_the_labels_of_the_layers_before_them(
    make: Callable[[], nn.Module], layer: str
) -> None:
    """A mixer's hidden positions and Swin's shifted windows go with their branch."""
    model, (images, labels) = make(), inputs(*SIZES[make])
    logits, found = align(model, ablation=Ablation(layers=[layer]))(images, labels)
    after = labels_at(observed_model(make), images, labels, [layer])[layer]
    torch.testing.assert_close(found, after.labels.mean(1))  # merging and pooling are means
    assert torch.equal(logits, model(images))


def test_shares_of_a_sum_of_three_streams_stay_without_the_stream() -> None:
    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.one(x) + self.two(x)

    model = Parallel().eval()
    x = torch.randn(2, 3, 5, generator=generator)
    labels = torch.rand(2, 7, 5, generator=generator).softmax(1)
    weights = [linear.weight.abs() for linear in (model.one, model.two)]
    one, two = (labels @ (w / w.sum(1, keepdim=True)).mT for w in weights)
    _, found = align(model)(x, labels)
    torch.testing.assert_close(found, (labels + one + two) / 3)
    _, found = align(model, ablation=Ablation(residual=False))(x, labels)
    torch.testing.assert_close(found, (one + two) / 2)
    _, found = align(model, ablation=Ablation(layers=["one"]))(x, labels)
    torch.testing.assert_close(found, (labels + one + labels) / 3)


def test_what_cannot_be_left_out_is_said() -> None:
    images, labels = inputs(*SIZE)
    with pytest.raises(
        LabelError,
        match=r"no step that mixes labels lies in blocks\.9; such steps are in .*blocks\.0",
    ):
        ablated(observed_model(small_vit).trace, Ablation(layers=["blocks.9"]))
    with pytest.raises(LabelError, match=r"no residual connection around a step .*mixes"):
        align(nn.Conv2d(3, 5, 3), ablation=Ablation(last_layer=True))(images, labels)
    with pytest.raises(LabelError, match="either layers or last_layer"):
        Ablation(layers=["blocks.0"], last_layer=True)
    with pytest.raises(LabelError, match=r"list of module paths; write layers=\['blocks.0'\]"):
        Ablation(layers="blocks.0")
