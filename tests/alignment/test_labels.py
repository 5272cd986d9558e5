"""Labels from end to end: against the paper's official code, against replicas, and their laws."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import labeltrace
from labeltrace.runtime import graph_cache
from tests.helpers.families import (
    Family,
    every_family,
    example,
    family_in_all_modes,
    fresh,
    modes_of,
)
from tests.oracles.official import official
from tests.oracles.replicas import vision_transformer
from tests.oracles.replicas.models import CASES, ReplicaCase, example_inputs


class Part(nn.Module):
    """A part of a model's forward pass as a model of its own."""

    def __init__(self, model: nn.Module, forward: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.part = forward

    def forward(self, images: Tensor) -> Tensor:
        return self.part(self.model, images)


def first_tokens(model: Any, images: Tensor) -> Tensor:
    return model._pos_embed(model.patch_embed(images))


def last_tokens(model: Any, images: Tensor) -> Tensor:
    return model.forward_features(images)


def labels_of(model: nn.Module, images: Tensor, label_image: Tensor) -> Tensor:
    with torch.no_grad():
        return labeltrace.align(model)(images, label_image)[1]


def close(first: Tensor, second: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(first.double(), second.double(), atol=tolerance, rtol=0)


def distribution(labels: Tensor, shape: tuple[int, ...], dim: int = 1) -> None:
    """The contract's point 1."""
    assert labels.shape == shape
    assert labels.dtype == torch.float32
    assert not labels.requires_grad
    assert labels.min() >= 0
    sums = labels.sum(dim)
    close(sums, torch.ones_like(sums), 1e-5)


# Against what others computed. --------------------------------------------------------------------


def test_official_implementation_of_the_paper() -> None:
    model, given = official()
    images, label_image = given["images"], given["label_image"]
    close(labels_of(model, images, label_image), given["aligned"], 1e-6)
    first = labels_of(Part(model, first_tokens), images, label_image)
    close(first, given["token_labels"], 1e-6)
    last = labels_of(Part(model, last_tokens), images, label_image)
    close(last[:, 0], given["aligned"], 1e-6)
    close(last, vision_transformer.final_token_labels(model, images, label_image), 1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_replicas_written_by_hand(case: ReplicaCase) -> None:
    model = case.build()
    images, label_image = example_inputs(case, batch=3)
    close(
        labels_of(model, images, label_image),
        case.aligned_labels(model, images, label_image),
        1e-5,
    )


# Laws that hold for every family. -----------------------------------------------------------------


@every_family
def test_labels_are_distributions(family: Family) -> None:
    for (training, autocast), sources in product(modes_of(family), (2, 3, 49)):
        images, label_image = example(family, sources=sources)
        aligned = fresh(family, training)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs, labels = aligned(images.requires_grad_(), label_image.requires_grad_())
        assert outputs.requires_grad
        distribution(labels, (2, sources))
        # Labels moved, by more than rounding: they are not the prior, nor the same for both images.
        assert (labels - label_image.mean((2, 3))).abs().max() > 1e-6
        assert (labels[0] - labels[1]).abs().max() > 1e-6


@every_family
def test_uniform_label_image_stays_uniform(family: Family) -> None:
    images, label_image = example(family)
    everywhere = torch.tensor([[0.2, 0.3, 0.5], [0.7, 0.1, 0.2]])
    uniform = everywhere[:, :, None, None].expand(label_image.shape)
    aligned = fresh(family, training=False)
    _, labels = aligned(images, uniform)
    close(labels, everywhere, 1e-5)
    _, mixed_up = aligned(images, everywhere[:, :, None, None])
    assert torch.equal(mixed_up, labels)


@every_family
def test_labels_are_linear_in_the_label_image(family: Family) -> None:
    images, first = example(family)
    _, second = example(family, seed=1)
    aligned = fresh(family, training=False)
    of_first, of_second, of_blend = (
        aligned(images, labels)[1] for labels in (first, second, 0.3 * first + 0.7 * second)
    )
    close(of_blend, 0.3 * of_first + 0.7 * of_second, 1e-5)


@every_family
def test_sources_are_assembled_from_a_basis(family: Family) -> None:
    """49 regions of the image as sources tell what any label constant on them becomes."""
    images, _ = example(family)
    rows, columns = (torch.arange(size) * 7 // size for size in family.image_size)
    region = 7 * rows[:, None] + columns
    basis = nn.functional.one_hot(region, 49).movedim(-1, 0).float().expand(2, -1, -1, -1)
    of_region = torch.rand(49, 2, generator=torch.Generator().manual_seed(0))
    of_region = of_region / of_region.sum(1, keepdim=True)
    label_image = of_region[region].movedim(-1, 0).expand(2, -1, -1, -1)
    aligned = fresh(family, training=False)
    _, shares = aligned(images, basis)
    _, labels = aligned(images, label_image)
    close(shares @ of_region, labels, 1e-5)


@family_in_all_modes
def test_each_image_has_its_labels_alone(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of any size and order, with one capture for all sizes but a first look at one."""
    images, label_image = example(family, batch=5)
    aligned = fresh(family, training=False)
    for size in (2, 1):
        aligned(images[:size], label_image[:size])
    for function in ("capture_model", "extend_to_single_sample"):
        monkeypatch.setattr(graph_cache, function, _captured_again)
    alone = torch.cat([aligned(images[[i]], label_image[[i]])[1] for i in range(5)])
    for chosen in ([1, 0], [0, 1, 2, 3, 4], [4, 2, 0, 1, 3]):
        outputs, labels = aligned(images[chosen], label_image[chosen])
        assert len(outputs) == len(chosen)
        close(labels, alone[chosen], 1e-6)


def _captured_again(*_: object, **__: object) -> None:
    raise AssertionError("the model was captured again")
