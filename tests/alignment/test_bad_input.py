"""Bad input ends in one clear error, and leaves everything as it was."""

from __future__ import annotations

import copy
import re
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from labeltrace import (
    CaptureError,
    CutMix,
    LabelError,
    LabelTraceError,
    LayoutError,
    MixUp,
    UnknownOperatorError,
    align,
    trace,
)
from labeltrace.flow import Flow, Operation
from labeltrace.layout import unsqueeze
from labeltrace.rule_api.call import Call
from labeltrace.rule_helpers.elementwise import carry, relayout
from tests.helpers.families import FAMILIES
from tests.helpers.identity import (
    IMAGES,
    LABELS,
    Function,
    Tiny,
    snapshot,
    unchanged,
)


def refused(model: nn.Module, kind: type[Exception], call: Callable[[], Any]) -> str:
    """The message of the error in which a call ends, once nothing has changed by it."""
    before, images, labels = snapshot(model), IMAGES.clone(), LABELS.clone()
    with pytest.raises(kind) as caught:
        call()
    assert caught.type is kind  # one of our own, and none of those that it stands above
    unchanged(before, snapshot(model))
    assert torch.equal(IMAGES, images)
    assert torch.equal(LABELS, labels)
    return str(caught.value)


def test_every_error_has_one_base() -> None:
    for kind in (CaptureError, LabelError, LayoutError, UnknownOperatorError):
        assert issubclass(kind, LabelTraceError)


# Label images. ------------------------------------------------------------------------------------


def with_entry(value: float) -> Tensor:
    labels = LABELS.clone()
    labels[1, 0, 2, 3] = value
    return labels


NEGATIVE = with_entry(-0.5)
NEGATIVE[1, 1, 2, 3] = 1.5

BAD_LABELS: dict[str, tuple[Any, str]] = {
    "no_tensor": ([[0.5, 0.5]], r"must be a tensor \(B, K, \*sizes\), not list"),
    "integers": ((LABELS > 0.5).long(), r"dtype torch.int64.*floating point.*one-hot"),
    "booleans": (LABELS > 0.5, r"dtype torch.bool.*floating point"),
    "device": (
        LABELS.to("meta"),
        r"labels are on meta, the images on cpu; move them with labels\.to\(images.device\)",
    ),
    "rank": (
        LABELS.mean((2, 3)),
        r"shape \(3, 2\); for an input of shape \(3, 3, 6, 10\) they must be \(B, K, 6, 10\)",
    ),
    "rows_and_columns": (
        LABELS.mT,
        r"labels have shape \(3, 2, 10, 6\); \(B, K, 6, 10\) fits the input, or ones for sizes",
    ),
    "size": (LABELS[..., 1:], r"shape \(3, 2, 6, 9\).*\(B, K, 6, 10\)"),
    "no_sources": (LABELS[:, :0], r"shape \(3, 0, 6, 10\)"),
    "batch": (LABELS[:2], r"batch of 2, the input one of 3"),
    "one_for_all": (LABELS[:1], r"batch of 1, the input one of 3"),
    "nan": (with_entry(torch.nan), "labels have NaN entries"),
    "infinite": (with_entry(torch.inf), "sum to one"),
    "negative": (NEGATIVE, r"negative.*-0\.5"),
    "sum": (LABELS * 2, r"sum to one over dimension 1.*up to 1;.*labels.sum\(1, keepdim=True\)"),
    "sum_in_one_place": (with_entry(LABELS[1, 0, 2, 3] + 0.01), r"sum to one.*0\.01"),
    "zero": (torch.zeros_like(LABELS), "sum to one"),
}


@pytest.mark.parametrize(("labels", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("captured", [False, True], ids=["new", "captured"])
def test_label_images(labels: Any, message: str, training: bool, captured: bool) -> None:
    model = Tiny().train(training)
    aligned = align(model, IMAGES if captured else None)
    found = refused(model, LabelError, lambda: aligned(IMAGES, labels))
    assert re.search(message, found), found
    aligned(IMAGES, LABELS)


# Inputs that do not fit the model. ----------------------------------------------------------------


@pytest.mark.parametrize("captured", [False, True], ids=["new", "captured"])
def test_a_batch_of_no_images(captured: bool) -> None:
    model = Tiny()
    aligned = align(model, IMAGES if captured else None)
    found = refused(model, LabelError, lambda: aligned(IMAGES[:0], LABELS[:0]))
    assert re.search(r"shape \(0, 3, 6, 10\).*nothing to follow; leave empty batches out", found)


def test_an_input_smaller_than_the_model_allows() -> None:
    model = Tiny()
    small = torch.randn(3, 3, 1, 10), torch.full((3, 2, 1, 10), 0.5)
    aligned = align(model)
    words = "Kernel size can't be greater than actual input size"
    assert words in refused(model, RuntimeError, lambda: aligned(*small))  # the model's own error
    for call in (
        lambda: align(model, small[0], engine="captured"),
        lambda: trace(model, small[0], engine="captured"),
    ):
        message = refused(model, CaptureError, call)
        assert "Tiny cannot be captured with inputs of shape (3, 3, 1, 10)" in message
        assert "self.stem(images)" in message  # the line that stopped it
        assert words in message
    aligned(IMAGES, LABELS)


def test_an_input_of_another_size_than_the_models() -> None:
    family = next(family for family in FAMILIES if family.name == "vit")
    model = family.build().train()
    rows, columns = family.image_size
    images, labels = torch.randn(2, 3, rows, columns + 3), torch.ones(2, 1, 1, 1)
    message = refused(model, AssertionError, lambda: align(model)(images, labels))
    assert "Input width (24) doesn't match model (21)" in message


def test_the_wrong_number_of_channels() -> None:
    model = Tiny()
    message = refused(model, RuntimeError, lambda: align(model)(IMAGES[:, :2], LABELS))
    assert "expected input[3, 2, 6, 10] to have 3 channels" in message


def test_arguments_that_the_model_does_not_take() -> None:
    model = Tiny()
    for call in (
        lambda: align(model)(IMAGES, LABELS, 3),
        lambda: align(model)(IMAGES, LABELS, scale=3),
    ):
        message = refused(model, TypeError, call)
        assert re.search(r"takes 2 positional arguments|unexpected keyword", message)
    message = refused(model, CaptureError, lambda: trace(model, (IMAGES, 3), engine="captured"))
    assert "Tiny cannot be called so: too many positional arguments" in message
    assert "; pass what its forward takes: forward(images: " in message


def test_an_engine_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"engine='fast'; it is one of 'auto', 'captured'"):
        align(Tiny(), engine="fast")  # type: ignore[arg-type]


def test_arguments_of_a_kind_that_no_graph_takes() -> None:
    model = Function(lambda x, indices: x)
    message = refused(model, CaptureError, lambda: align(model)(IMAGES, LABELS, {1, 2}))
    assert "an argument of type set cannot be part of a graph; pass tensors, numbers" in message


def test_what_the_plain_model_refuses_is_refused() -> None:
    """Batch norm over a single value raises in training; the batch has been counted by then."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3)).train()
    twin = copy.deepcopy(model)
    aligned = align(model)
    for _ in ("new", "captured"):
        with pytest.raises(ValueError, match="more than 1 value per channel") as caught:
            aligned(IMAGES[:1], LABELS[:1])
        with pytest.raises(ValueError, match="more than 1 value per channel") as own:
            twin(IMAGES[:1])
        assert (caught.type, str(caught.value)) == (own.type, str(own.value))
        for own_buffer, buffer in zip(twin.buffers(), model.buffers(), strict=True):
            assert torch.equal(own_buffer, buffer)
        aligned(IMAGES, LABELS)
        twin(IMAGES)


@pytest.mark.parametrize("nothing", [(), [], {}, "image.png", 3, ([{"size": 3}],)], ids=repr)
def test_no_tensor_to_carry_labels(nothing: Any) -> None:
    model = Tiny()
    for call in (
        lambda: align(model, nothing),
        lambda: trace(model, nothing),
        lambda: align(model)(nothing, LABELS),
    ):
        message = refused(model, CaptureError, call)
        assert (
            "called without a tensor, so nothing can carry labels; pass the image batch" in message
        )


@pytest.mark.parametrize("channel_dim", [0, 4, -4, -5])
def test_no_such_channel_axis(channel_dim: int) -> None:
    model = Tiny()
    for call in (
        lambda: align(model, IMAGES, channel_dim=channel_dim),
        lambda: align(model, channel_dim=channel_dim)(IMAGES, LABELS),
        lambda: trace(model, IMAGES, channel_dim=channel_dim),
    ):
        message = refused(model, CaptureError, call)
        assert f"channel_dim={channel_dim}" in message
        assert "(3, 3, 6, 10)" in message


def test_no_channel_axis_at_all() -> None:
    model = Function(torch.relu)
    vector = torch.randn(5)
    message = refused(model, CaptureError, lambda: align(model, vector))
    assert "shape (5,)" in message
    refused(model, CaptureError, lambda: align(model)(torch.tensor(1.0), torch.tensor(1.0)))


# Models that cannot be followed. ------------------------------------------------------------------


class Brancher(Tiny):
    """Its way depends on values."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)  # batch norm and dropout come before the fault
        if features.sum() > 0:
            features = -features
        return self.head(features.mean((2, 3)))


def test_a_model_that_cannot_be_captured() -> None:
    model = Brancher().train()
    aligned = align(model, engine="captured")
    message = refused(model, CaptureError, lambda: aligned(IMAGES, LABELS))
    assert "a graph would not be true to Brancher: it reads values of tensors" in message
    assert re.search(rf"{re.escape(__file__)}:\d+: if features.sum\(\) > 0:", message)
    assert "use engine='auto' or engine='recorded'" in message
    for call in (
        lambda: align(model, IMAGES, engine="captured"),
        lambda: trace(model, IMAGES, engine="captured"),
    ):
        message = refused(model, CaptureError, call)
        assert "Brancher cannot be captured" in message
        line = next(line for line in message.splitlines() if "stopped at" in line)
        assert re.search(rf"{re.escape(__file__)}:\d+: if features.sum\(\) > 0:", line)
        assert "no branch or size may depend on the values" in message
    assert torch.equal(
        aligned.eval()(IMAGES), model(IMAGES)
    )  # without labels it is as good as ever


class Unknown(Tiny):
    """Two operators without rules, one of them twice."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        features = torch.special.bessel_j0(features) + torch.special.bessel_j1(features)
        features = torch.special.bessel_j0(features)
        return self.head(features.mean((2, 3)))


def test_operators_without_a_rule() -> None:
    model = Unknown()
    aligned = align(model)
    for call in (
        lambda: aligned(IMAGES, LABELS),
        lambda: align(model, IMAGES),
        lambda: trace(model, IMAGES),
    ):
        message = refused(model, UnknownOperatorError, call)
        # Every one of them, with its shapes, module and line.
        assert message.count("no rule for aten.special_bessel_j0: 2 calls; ") == 1
        assert message.count("no rule for aten.special_bessel_j1: 1 call; ") == 1
        assert re.search(r"called with \(\w+, 5, 3, 5\) -> \(\w+, 5, 3, 5\)", message)
        assert re.search(rf"\(Unknown\), {re.escape(__file__)}:\d+: features = ", message)
        # A stub for each operator, once.
        assert message.count("def special_bessel_j0_rule(call):") == 1
        assert message.count("def special_bessel_j1_rule(call):") == 1


def test_the_stub_in_the_error_mends_it() -> None:
    model = Unknown().eval()
    with pytest.raises(UnknownOperatorError) as caught:
        align(model, IMAGES)
    names: dict[str, Any] = {"model": model}
    exec(textwrap.dedent(str(caught.value).split("\n\n", 1)[1]), names)
    plain = align(Tiny().eval())(IMAGES, LABELS)[1]
    by_operator = {torch.ops.aten.special_bessel_j1: names["special_bessel_j1_rule"]}
    for aligned in (
        names["aligned"],
        align(model, IMAGES, rules=names["rules"] | by_operator),
    ):
        outputs, labels = aligned(IMAGES, LABELS)
        assert torch.equal(outputs, model(IMAGES))
        torch.testing.assert_close(labels, plain)


class Cutter(Tiny):
    """Positions and channels end up in one axis, which is then cut through."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)  # (B, 5, 3, 5)
        return features.flatten(1)[:, 1:].reshape(-1, 2, 37).sum(-1)


def test_positions_that_cannot_be_followed() -> None:
    model = Cutter()
    aligned = align(model)
    for call in (
        lambda: aligned(IMAGES, LABELS),
        lambda: align(model, IMAGES),
        lambda: trace(model, IMAGES),
    ):
        message = refused(model, LayoutError, call)
        assert "cuts through" in message
        assert re.search(
            rf"\(Cutter\), {re.escape(__file__)}:\d+: return features.flatten", message
        )
        assert "What to do" in message


# Settings. ----------------------------------------------------------------------------------------


def test_what_is_no_model_or_no_rule() -> None:
    model = Tiny()
    with pytest.raises(TypeError, match=r"takes a torch.nn.Module, not str"):
        align("resnet18")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"takes a torch.nn.Module, not type"):
        align(Tiny)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Module, not builtin_function"):
        trace(torch.relu, IMAGES)  # type: ignore[arg-type]
    message = refused(model, TypeError, lambda: align(model, rules={3: len}))
    assert "3 can have no rule" in message
    message = refused(model, TypeError, lambda: align(model, rules={"aten.relu": "pointwise"}))
    assert "rule for aten.relu is not a function" in message


def of_another_shape(call: Call) -> Flow:
    return relayout(
        call.traced[0], unsqueeze(call.traced[0].traced_layout, 0), operation=Operation.POINTWISE
    )


def too_many(call: Call) -> tuple[Flow, ...]:
    return (carry(call.traced[0], call.output),) * 2


def test_rules_that_do_not_fit_their_operator() -> None:
    model = Tiny()
    for rule, words in ((of_another_shape, "returned the layout"), (too_many, "returned 2 flows")):
        rules = {torch.ops.aten.relu: rule}
        message = refused(model, LayoutError, lambda rules=rules: align(model, IMAGES, rules=rules))
        assert f"the rule {rule.__name__} ({__file__}" in message
        assert words in message


def test_asking_for_label_code_too_early() -> None:
    with pytest.raises(LabelError, match="call the module with labels once"):
        align(Tiny()).label_code()


@pytest.mark.parametrize("mix", [CutMix(), MixUp()], ids=["cutmix", "mixup"])
def test_class_indices_out_of_range(mix: Any) -> None:
    batch = mix(IMAGES, torch.tensor([0, 7, 2]))
    labels = torch.full((3, 2), 0.5)
    with pytest.raises(LabelError, match=r"7"):
        batch.soft_targets(labels, num_classes=7)
    state = torch.get_rng_state()
    with pytest.raises(LabelError, match=r"-1"):
        mix(IMAGES, torch.tensor([0, -1, 2]))
    assert torch.equal(torch.get_rng_state(), state)
