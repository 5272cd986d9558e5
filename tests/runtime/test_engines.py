"""The choice between the two engines, and that both give the same labels."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import labeltrace
from labeltrace import Engine, EngineWarning
from tests.helpers.families import Family, every_family, example
from tests.helpers.identity import IMAGES, LABELS, Tiny

ASKS_ABOUT_EXPORTS = {"sam"}
"""Their code asks whether it is being exported, and resizes positions to the same size then."""


@every_family
def test_both_engines_agree_on_every_family(family: Family) -> None:
    """Each is the other's oracle: outputs bit for bit, labels within rounding."""
    images, label_image = example(family, batch=2)
    model = family.build().eval()
    if family.name in ASKS_ABOUT_EXPORTS:
        with pytest.raises(labeltrace.CaptureError, match="its backward pass has nothing where"):
            labeltrace.align(model, engine="captured")(images, label_image)
        return
    captured = labeltrace.align(model, engine="captured")
    recorded = labeltrace.align(model, engine="recorded")
    for _ in range(2):  # the second recorded call repeats the first
        outputs, labels = captured(images, label_image)
        others, other_labels = recorded(images, label_image)
        assert torch.equal(outputs, others)
        torch.testing.assert_close(labels, other_labels, rtol=0, atol=1e-6)
    assert [choice.engine for choice in captured.engine_report()] == [Engine.CAPTURED]
    assert [choice.engine for choice in recorded.engine_report()] == [Engine.RECORDED]


# Reasons. -----------------------------------------------------------------------------------------


class Doing(Tiny):
    """A tiny model that does something beside its layers."""

    def __init__(self, beside: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.beside = beside

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        changed = self.beside(self, features)
        return self.head((features if changed is None else changed).mean((2, 3)))


def _count(model: Any, features: Tensor) -> None:
    model.calls = getattr(model, "calls", 0) + 1


def _draw(model: Any, features: Tensor) -> None:
    random.random()


def _branch(model: Any, features: Tensor) -> Tensor:
    return features if features.sum() > 0 else -features


def _list(model: Any, features: Tensor) -> None:
    features.detach().flatten().tolist()


def _hook(model: Any, features: Tensor) -> None:
    features.register_hook(lambda gradient: 2 * gradient)


def _keep(model: Any, features: Tensor) -> None:
    model.kept = features.detach()


REASONS = {
    _branch: r"it reads values of tensors \(aten.is_nonzero\)",
    _count: "attribute `calls` of `the model`",
    _draw: "the random generator `random` advanced",
    _hook: "a hook is registered on a tensor",
    _keep: "tensor `kept` of `the model`",
    _list: r"it reads values of tensors \(aten.resolve_",
}


@pytest.mark.parametrize("beside", REASONS, ids=lambda beside: beside.__name__)
def test_a_reason_is_told_once_with_its_line(beside: Callable[[Any, Tensor], Any]) -> None:
    aligned = labeltrace.align(Doing(beside).train())
    with pytest.warns(EngineWarning, match=REASONS[beside]) as caught:
        for _ in range(3):
            aligned(IMAGES, LABELS)
    assert len([one for one in caught if one.category is EngineWarning]) == 1
    (choice,) = aligned.engine_report()
    assert choice.engine is Engine.RECORDED
    assert choice.training
    assert choice.inputs == ((3, 3, 6, 10),)
    assert choice.reason in str(choice)
    if beside in (_branch, _list):
        assert f"{__file__}:" in choice.source_line


def test_a_model_without_python_beside_it_is_captured_for_any_batch() -> None:
    aligned = labeltrace.align(Tiny().eval())
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        for batch in (3, 2, 1, 3):
            aligned(IMAGES[:batch], LABELS[:batch])
    assert {choice.engine for choice in aligned.engine_report()} == {Engine.CAPTURED}
    assert len(aligned._engines.graphs.graphs) == 1


def test_a_model_whose_first_call_is_special_is_captured_from_the_second_on() -> None:
    def prepare(model: Any, features: Tensor) -> None:
        if not hasattr(model, "is_ready"):
            model.is_ready = True

    aligned = labeltrace.align(Doing(prepare).eval())
    with pytest.warns(EngineWarning, match="is_ready"):
        aligned(IMAGES, LABELS)
    aligned(IMAGES, LABELS)
    assert [choice.engine for choice in aligned.engine_report()] == [Engine.CAPTURED]


def test_a_change_is_noticed_unless_the_caller_vouches() -> None:
    model = Tiny().eval()
    aligned = labeltrace.align(model)
    before, _ = aligned(IMAGES, LABELS)
    with labeltrace.assume_unchanged(aligned):
        aligned(IMAGES, LABELS)
        model.mixing.padding_mode = "circular"
        model.mixing._reversed_padding_repeated_twice = [1, 1, 1, 1]
        unnoticed, _ = aligned(IMAGES, LABELS)
    noticed, _ = aligned(IMAGES, LABELS)
    assert torch.equal(unnoticed, before)
    assert torch.equal(noticed, model(IMAGES))
    assert not torch.equal(noticed, before)


def test_torch_compile_refuses_what_no_graph_can_hold() -> None:
    compiled = torch.compile(labeltrace.align(Doing(_count)), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match=r"torch\.compile takes captured models alone"):
        compiled(IMAGES, LABELS)


def test_a_graph_that_fails_where_the_model_does_not_is_not_used() -> None:
    def caught(model: Any, features: Tensor) -> Tensor:
        try:
            return features.view(7, 11)  # never possible
        except RuntimeError:
            return features

    model = Doing(caught).eval()
    outputs, labels = labeltrace.align(model, engine="auto")(IMAGES, LABELS)
    assert torch.equal(outputs, model(IMAGES))
    assert labels.shape == (3, 2)


def test_an_error_of_ours_puts_the_model_back() -> None:
    class Unfollowed(Doing):
        pass

    def unknown(model: Any, features: Tensor) -> Tensor:
        model.calls = getattr(model, "calls", 0) + 1
        return torch.linalg.svd(features)[0]

    model = Unfollowed(unknown).train()
    before = torch.get_rng_state(), model.norm.num_batches_tracked.clone()
    for engine in ("auto", "recorded"):
        with pytest.raises(labeltrace.LabelTraceError):
            labeltrace.align(model, engine=engine)(IMAGES, LABELS)  # type: ignore[arg-type]
        assert torch.equal(torch.get_rng_state(), before[0])
        assert torch.equal(model.norm.num_batches_tracked, before[1])
        assert not hasattr(model, "calls")


def test_nothing_of_a_run_is_kept_but_what_labels_read() -> None:
    """The activations of a recorded run without gradients are freed as those of the plain one."""
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(9))).eval()
    aligned = labeltrace.align(model, engine="recorded")
    with torch.no_grad():
        aligned(IMAGES, LABELS)
        run = aligned._engines.programs.run((IMAGES,), {})
    activations = {info.shape for info in run.recording.tensors if info.shape == (3, 3, 6, 10)}
    kept = [tensor for tensor in run.kept.values() if tuple(tensor.shape) in activations]
    assert len(run.recording.calls) == 9
    assert not kept
