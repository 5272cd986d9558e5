"""What training does to a module, done to an aligned one: it stays the model that it is made of."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import labeltrace
from labeltrace import AlignedModule

IMAGES = torch.rand(3, 3, 14, 14, generator=torch.Generator().manual_seed(1))
LABELS = torch.rand(3, 2, 14, 14, generator=torch.Generator().manual_seed(2)).softmax(1)


@pytest.fixture
def model() -> Iterator[VisionTransformer]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield VisionTransformer(
            img_size=14, patch_size=7, embed_dim=12, depth=1, num_heads=3, num_classes=5
        )


def assert_is_model(aligned: Any, model: nn.Module) -> None:
    """The aligned module computes what the model does, with gradients for the same parameters."""
    model.zero_grad()
    logits, labels = aligned(IMAGES, LABELS)
    assert logits.equal(model(IMAGES))
    assert labels.sum(1).allclose(torch.ones(len(IMAGES)))
    logits.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def step(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 1


def timm_average(aligned: AlignedModule) -> tuple[AlignedModule, Callable[[], None]]:
    average = ModelEmaV3(aligned, decay=0.5)
    return average.module, lambda: average.update(aligned)


def torch_average(aligned: AlignedModule) -> tuple[AlignedModule, Callable[[], None]]:
    average = AveragedModel(aligned, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    average.update_parameters(aligned)  # the first one copies
    return average.module, lambda: average.update_parameters(aligned)


@pytest.mark.parametrize("average_of", [timm_average, torch_average])
def test_averages_of_parameters(model: nn.Module, average_of: Callable[..., Any]) -> None:
    aligned = labeltrace.align(model, IMAGES)
    before = copy.deepcopy(model.state_dict())
    average, update = average_of(aligned)
    step(model)
    update()
    assert list(average.state_dict()) == list(before)
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value, before[name] + 0.5)
    assert_is_model(average, average.module)
    assert not average.head.weight.equal(model.head.weight)


def test_state_goes_both_ways(model: nn.Module) -> None:
    aligned = labeltrace.align(model)
    state = copy.deepcopy(model.state_dict())
    assert list(aligned.state_dict()) == list(state)
    step(aligned)
    aligned.load_state_dict(state)
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key"):
        aligned.load_state_dict({})


def test_a_saved_module_is_one_with_its_model_when_loaded(model: nn.Module) -> None:
    aligned = labeltrace.align(model)
    expected = aligned(IMAGES, LABELS)
    file = io.BytesIO()
    torch.save(aligned, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for found, value in zip(loaded(IMAGES, LABELS), expected, strict=True):
        assert found.equal(value)
    step(loaded)
    assert_is_model(loaded, loaded.module)
    assert not loaded.head.weight.equal(model.head.weight)


def test_frozen_parts_get_no_gradient_until_they_thaw(model: nn.Module) -> None:
    aligned = labeltrace.align(model)
    aligned.blocks.requires_grad_(False)
    assert_is_model(aligned, model)
    aligned.blocks.requires_grad_(True)
    assert_is_model(aligned, model)


def test_parameter_groups_go_by_the_models_names(model: VisionTransformer) -> None:
    aligned = labeltrace.align(model)
    skipped = aligned.no_weight_decay()
    assert skipped == model.no_weight_decay() != set()
    found, expected = (param_groups_weight_decay(m, 0.1, skipped) for m in (aligned, model))
    for one, other in zip(found, expected, strict=True):
        assert one["weight_decay"] == other["weight_decay"]
        assert list(map(id, one["params"])) == list(map(id, other["params"]))


@pytest.mark.parametrize("side", ["aligned", "model"])
def test_the_head_may_be_swapped_on_either_side(model: VisionTransformer, side: str) -> None:
    aligned = labeltrace.align(model, IMAGES)
    module: Any = {"aligned": aligned, "model": model}[side]
    module.head = nn.Linear(12, 7)
    assert aligned.head is model.head
    assert_is_model(aligned, model)
    module.reset_classifier(11)
    assert aligned(IMAGES, LABELS)[0].shape == (3, 11)
    assert_is_model(aligned, model)


def test_settings_may_be_changed_on_either_side(model: VisionTransformer) -> None:
    aligned = labeltrace.align(model)
    aligned.num_prefix_tokens = 4
    assert model.num_prefix_tokens == aligned.num_prefix_tokens == 4
    aligned.grad_checkpointing = True
    assert model.grad_checkpointing
    aligned.training = False
    assert not model.training
    model.train()
    assert aligned.training
    aligned.note = "of the wrapper only"
    assert not hasattr(model, "note")


class LowRank(nn.Module):
    """LoRA: a frozen matrix and a trainable update of rank two."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.rand(2, columns))
        self.up = nn.Parameter(torch.rand(rows, 2))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def test_parametrised_weights(model: VisionTransformer) -> None:
    aligned = labeltrace.align(model, IMAGES)
    plain = aligned(IMAGES, LABELS)[0]
    model.requires_grad_(False)
    parametrize.register_parametrization(aligned.blocks[0].attn.qkv, "weight", LowRank(36, 12))
    weight_norm(aligned.head)
    assert sum(parameter.requires_grad for parameter in model.parameters()) == 2
    assert not aligned(IMAGES, LABELS)[0].allclose(plain)
    assert_is_model(aligned, model)
    with parametrize.cached():
        assert aligned(IMAGES, LABELS)[0].equal(model(IMAGES))
    parametrize.remove_parametrizations(aligned.blocks[0].attn.qkv, "weight")
    assert aligned(IMAGES, LABELS)[0].equal(model(IMAGES))


def test_a_capture_leaves_nothing_in_the_cache_of_parametrisations(
    model: VisionTransformer,
) -> None:
    weight_norm(model.head)
    aligned = labeltrace.align(model)
    with parametrize.cached():
        assert aligned(IMAGES, LABELS)[0].equal(model(IMAGES))


def test_gradients_add_up_over_batches(model: VisionTransformer) -> None:
    aligned = labeltrace.align(model)
    for images, labels in zip(IMAGES.split(1), LABELS.split(1), strict=True):
        aligned(images, labels)[0].sum().backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model(IMAGES).sum().backward()
    for one, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)
