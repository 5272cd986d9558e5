"""The forward half is the plain model's bit for bit, and the model stays what it is."""

from __future__ import annotations

import copy
import io
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace
from labeltrace import AlignedModule
from labeltrace.capture.batch import BatchPolicy
from labeltrace.runtime import graph_cache
from tests.helpers.families import Family, every_family, example, fresh, modes_of
from tests.helpers.identity import (
    IMAGES,
    LABELS,
    Function,
    Tiny,
    inputs,
    same,
    snapshot,
    step,
    unchanged,
)


@every_family
def test_forward_is_the_plain_models(family: Family) -> None:
    """Outputs, gradients, statistics of batch norms and random state."""
    for training, autocast in modes_of(family):
        check_forward(family, training, autocast)


def check_forward(family: Family, training: bool, autocast: bool) -> None:
    images, label_image = example(family, batch=3)
    plain, aligned = family.build().train(training), fresh(family, training)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = step(plain, plain, images)
        found = step(aligned.module, lambda images: aligned(images, label_image)[0], images)
        repeated = step(plain, plain, images, seed=1)
    same(found, expected)
    # All of the model takes part; DropPath leaves some of it out in training.
    gradients = {name: g for name, g in expected.tensors.items() if name.startswith("gradient")}
    assert all(g is not None and (training or g.any()) for g in gradients.values()), gradients
    # Dropout and DropPath were on, in training alone.
    drawn = not torch.equal(expected.tensors["outputs"], repeated.tensors["outputs"])
    assert drawn == training


# What users do with a module. ---------------------------------------------------------------------


def test_without_labels_it_is_the_plain_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "capture_model", None)  # a call of it fails
    plain, model = Tiny(), Tiny()
    aligned = labeltrace.align(model)
    assert aligned.module is model
    same(step(model, aligned, IMAGES), step(plain, plain, IMAGES))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("batch", [1, 3])
def test_aligning_and_tracing_change_nothing(training: bool, batch: int) -> None:
    model = Tiny().train(training)
    model.norm.eval()  # a mode that differs from the whole's
    model.head.bias.requires_grad_(False)
    before = snapshot(model)
    aligned = labeltrace.align(model, IMAGES[:batch])
    unchanged(before, snapshot(model))
    labeltrace.trace(model, IMAGES[:batch]).table()
    aligned.trace(IMAGES[:batch])
    aligned.label_code()
    unchanged(before, snapshot(model))


def test_calls_change_nothing_in_eval_mode() -> None:
    model = Tiny().eval()
    before = snapshot(model)
    aligned = labeltrace.align(model)
    for _ in range(2):
        aligned(IMAGES, LABELS)
    unchanged(before, snapshot(model))


def test_checkpoints_are_the_plain_models() -> None:
    plain, aligned = Tiny().eval(), labeltrace.align(Tiny().eval(), IMAGES)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(1.5)
    assert list(plain.state_dict()) == list(aligned.state_dict())
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in aligned.named_parameters()]
    assert [n for n, _ in plain.named_buffers()] == [n for n, _ in aligned.named_buffers()]
    aligned.load_state_dict(plain.state_dict(), strict=True)
    _, labels = aligned(IMAGES, LABELS)
    assert torch.equal(aligned(IMAGES, LABELS)[0], plain(IMAGES))
    assert torch.equal(labels, labeltrace.align(plain)(IMAGES, LABELS)[1])
    other = Tiny().eval()
    other.load_state_dict(aligned.state_dict(), strict=True)
    assert torch.equal(other(IMAGES), plain(IMAGES))


def test_optimisers_of_either_move_both() -> None:
    """Weights are read from the live model: the graph has none of its own."""
    plain, aligned = Tiny().eval(), labeltrace.align(Tiny().eval(), IMAGES)
    for model, forward in ((plain, plain), (aligned, lambda x: aligned(x, LABELS)[0])):
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for _ in range(2):
            optimizer.zero_grad()
            forward(IMAGES).square().sum().backward()
            optimizer.step()
    assert torch.equal(aligned(IMAGES, LABELS)[0], plain(IMAGES))
    assert torch.equal(aligned.module(IMAGES), plain(IMAGES))
    assert not torch.equal(plain(IMAGES), Tiny().eval()(IMAGES))


def duplicate_by_copy(aligned: AlignedModule) -> AlignedModule:
    return copy.deepcopy(aligned)


def duplicate_by_file(aligned: AlignedModule) -> AlignedModule:
    file = io.BytesIO()
    torch.save(aligned, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("duplicate", [duplicate_by_copy, duplicate_by_file])
@pytest.mark.parametrize("called", [False, True], ids=["new", "called"])
def test_copies_are_independent(
    duplicate: Callable[[AlignedModule], AlignedModule], called: bool
) -> None:
    aligned = labeltrace.align(Tiny().eval(), IMAGES if called else None)
    twin = duplicate(aligned)
    outputs, labels = aligned(IMAGES, LABELS)
    assert twin.module is not aligned.module
    assert dict(twin.named_parameters()).keys() == dict(aligned.named_parameters()).keys()
    assert torch.equal(twin(IMAGES, LABELS)[0], outputs)
    assert torch.equal(twin(IMAGES, LABELS)[1], labels)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    changed, moved = twin(IMAGES, LABELS)
    assert torch.equal(changed, twin.module(IMAGES))
    assert not torch.equal(changed, outputs)
    assert not torch.equal(moved, labels)
    assert torch.equal(aligned(IMAGES, LABELS)[0], outputs)
    assert torch.equal(aligned(IMAGES, LABELS)[1], labels)


@pytest.mark.parametrize("labels", [LABELS, LABELS.double()], ids=["float_labels", "double_labels"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["double", "bfloat16"])
def test_models_of_another_dtype(dtype: torch.dtype, labels: Tensor) -> None:
    aligned = labeltrace.align(Tiny().eval(), IMAGES)
    _, expected = aligned(IMAGES, LABELS)
    plain = Tiny().eval().to(dtype)
    aligned.to(dtype)
    outputs, found = aligned(IMAGES.to(dtype), labels)
    assert outputs.dtype == dtype
    assert torch.equal(outputs, plain(IMAGES.to(dtype)))
    assert found.dtype == torch.float32
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_switching_modes_uses_the_graph_of_the_present_mode() -> None:
    plain, aligned = Tiny(), labeltrace.align(Tiny())

    def both() -> None:
        same(
            step(aligned.module, lambda x: aligned(x, LABELS)[0], IMAGES),
            step(plain, plain, IMAGES),
        )

    for training in (True, False, True):
        plain.train(training)
        assert aligned.train(training) is aligned
        assert aligned.module.training == aligned.training == training
        both()
    for frozen in (plain, aligned.module):  # the usual way to freeze statistics
        frozen.norm.eval()
    both()
    for frozen in (plain, aligned):
        frozen.dropout.eval()
    both()


def test_swapping_a_part_after_aligning() -> None:
    aligned = labeltrace.align(Tiny().eval(), IMAGES)
    for owner, part in (
        (aligned.module, nn.Linear(5, 11)),
        (aligned, nn.Linear(5, 13)),
        (aligned.module, nn.Sequential(nn.Linear(5, 7), nn.Tanh())),
    ):
        owner.head = part.eval()
        outputs, _ = aligned(IMAGES, LABELS)
        assert torch.equal(outputs, aligned.module(IMAGES))
        assert aligned.module.head is aligned.head is part
    for stem in (nn.Conv2d(3, 5, 3, 3), nn.Conv2d(3, 5, 3, 3, padding=1)):
        aligned.module.stem = stem.eval()
        outputs, labels = aligned(IMAGES, LABELS)
        assert torch.equal(outputs, aligned.module(IMAGES))
        assert torch.equal(labels, labeltrace.align(aligned.module)(IMAGES, LABELS)[1])


def test_changing_a_setting_after_aligning() -> None:
    """Schedules of dropout and DropPath change numbers while training goes on."""
    plain, aligned = Tiny(), labeltrace.align(Tiny(), IMAGES)
    for probability in (0.4, 0.1, 0.0):
        plain.dropout.p = aligned.module.dropout.p = probability
        same(
            step(aligned.module, lambda x: aligned(x, LABELS)[0], IMAGES),
            step(plain, plain, IMAGES),
        )


def test_hooks_after_aligning() -> None:
    aligned = labeltrace.align(Tiny().eval(), IMAGES)
    handle = aligned.module.norm.register_forward_hook(lambda module, args, output: output * 2)
    assert torch.equal(aligned(IMAGES, LABELS)[0], aligned.module(IMAGES))
    handle.remove()
    assert torch.equal(aligned(IMAGES, LABELS)[0], aligned.module(IMAGES))


@pytest.mark.parametrize("first", [1, 3])
def test_a_batch_of_one_shares_the_graph_of_others(first: int) -> None:
    images, labels = inputs(6, 10, batch=3)
    aligned = labeltrace.align(Tiny().eval(), images[:first])
    for size in (first, 4 - first):
        outputs, _ = aligned(images[:size], labels[:size])
        assert torch.equal(outputs, aligned.module(images[:size]))
    (graph,) = aligned._engines.graphs.graphs.values()
    assert graph.capture.batch == graph.trace.capture.batch == BatchPolicy(1, float("inf"))


@pytest.mark.parametrize("first", [1, 3, 6])
@pytest.mark.parametrize("alone", [2, 3])
def test_sizes_of_the_batch_that_the_model_treats_apart(first: int, alone: float) -> None:
    def forward(x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            return halves(x) * alone
        return halves(x).flip(-1) if x.shape[0] > 4 else halves(x) * 3

    images, labels = inputs(6, 10, batch=6)
    aligned = labeltrace.align(Function(forward), images[:first])
    for size in (1, 3, 6, 4, 1):
        outputs, found = aligned(images[:size], labels[:size])
        assert torch.equal(outputs, forward(images[:size]))
        assert torch.equal(
            found, halves(labels[:size]).flip(-1) if size > 4 else halves(labels[:size])
        )


# What models take and return. ---------------------------------------------------------------------


def halves(x: Tensor) -> Tensor:
    """Pooling by two along the last axis."""
    return F.avg_pool2d(x, (1, 2))


def test_further_arguments_pass_through_unlabeled() -> None:
    class Scaled(nn.Module):
        def forward(
            self, x: Tensor, factor: Tensor, *, flip: bool = False, offset: Tensor | None = None
        ) -> Tensor:
            x = halves(x) * factor[:, None, None, None]
            x = x.flip(-1) if flip else x
            return x if offset is None else x + offset

    model = Scaled()
    aligned = labeltrace.align(model)
    factor = torch.tensor([2.0, 3.0, 5.0])
    for flip in (False, True):
        for offset in (None, torch.randn(5)):
            outputs, labels = aligned(IMAGES, LABELS, factor, flip=flip, offset=offset)
            assert torch.equal(outputs, model(IMAGES, factor, flip=flip, offset=offset))
            assert torch.equal(labels, halves(LABELS).flip(-1) if flip else halves(LABELS))
    assert torch.equal(aligned(IMAGES, None, factor), model(IMAGES, factor))


def test_the_same_tensor_twice() -> None:
    model = Function(lambda first, second: halves(first).relu() + halves(second))
    for one, other in ((IMAGES, IMAGES), (IMAGES, IMAGES + 1), (IMAGES + 1, IMAGES)):
        aligned = labeltrace.align(model, (one, other))
        for second in (one, one + 2):
            outputs, labels = aligned(one, LABELS, second)
            assert torch.equal(outputs, model(one, second))
            assert torch.equal(labels, halves(LABELS))


def test_nested_inputs_and_outputs() -> None:
    class Nested(nn.Module):
        def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
            x, weight = batch["image"], batch["meta"][0]
            tokens = halves(x).flatten(2).transpose(1, 2)
            return OrderedDict(
                maps=(x * weight, [halves(x)]),
                tokens=tokens,
                logits=tokens.mean(1),
                weight=weight * 2,
                name=batch["meta"][1],
            )

    model = Nested()
    aligned = labeltrace.align(model)
    batch = {"image": IMAGES, "meta": [torch.tensor(3.0), 7]}
    outputs, labels = aligned(batch, LABELS)
    expected = model(batch)
    assert list(outputs) == list(expected) == list(labels)
    assert type(outputs) is type(labels) is OrderedDict
    assert torch.equal(outputs["maps"][0], expected["maps"][0])
    assert torch.equal(outputs["maps"][1][0], expected["maps"][1][0])
    for name in ("tokens", "logits", "weight"):
        assert torch.equal(outputs[name], expected[name])
    assert outputs["name"] == 7
    assert isinstance(labels["maps"], tuple)
    assert torch.equal(labels["maps"][0], LABELS)
    assert torch.equal(labels["maps"][1][0], halves(LABELS))
    tokens = halves(LABELS).flatten(2).transpose(1, 2)
    assert torch.equal(labels["tokens"], tokens)
    torch.testing.assert_close(labels["logits"], tokens.mean(1))
    assert labels["weight"] is None
    assert labels["name"] is None


@pytest.mark.parametrize("sizes", [(11,), (6, 10), (4, 6, 10)], ids=["spectrum", "image", "video"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_any_number_of_position_axes(sizes: tuple[int, ...], channels_last: bool) -> None:
    """A mixing convolution with equal weights, and a strided one, against torch's pooling."""
    count = len(sizes)
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[count - 1]
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[count - 1]
    mixing, merging = convolution(5, 7, 3, padding=1), convolution(7, 2, 2, 2)
    nn.init.constant_(mixing.weight, -0.5)

    class Channels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(mixing, nn.GELU(), merging)

        def forward(self, x: Tensor) -> Tensor:
            if not channels_last:
                return self.layers(x)
            return self.layers(x.movedim(-1, 1)).movedim(1, -1)

    images, labels = inputs(*sizes, channels=5, sources=3)
    images = images.movedim(1, -1) if channels_last else images
    model = Channels()
    aligned = labeltrace.align(model, channel_dim=-1 if channels_last else 1)
    outputs, found = aligned(images, labels)
    assert torch.equal(outputs, model(images))
    mixed = pool(labels, 3, 1, 1, count_include_pad=False)
    expected = pool(mixed, 2)
    expected = expected.movedim(1, -1) if channels_last else expected
    torch.testing.assert_close(found, expected)
    uniform = labels[(..., *[slice(1)] * count)]
    _, mixed_up = aligned(images, uniform)
    torch.testing.assert_close(
        mixed_up, (uniform.movedim(1, -1) if channels_last else uniform).expand(expected.shape)
    )
