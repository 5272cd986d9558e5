"""Maxima that are followed to where they come from, against the operators' own Jacobians."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace
from labeltrace.label_ops import follow_maxima
from tests.helpers.code_module import Code
from tests.rules.cases.case import RuleCase, fault_of, values
from tests.rules.cases.expected_labels import each, mixes, no_label
from tests.rules.cases.pooling import DILATED, SHAPES, SIZES, WINDOWS

EXTREMES = {
    "x.amax(2)": ("aten.amax", mixes()),
    "x.amax((2, 3))": ("aten.amax", mixes()),
    "x.amin((-1, -2), keepdim=True)": ("aten.amin", mixes()),
    "x.amin(3, True)": ("aten.amin", mixes()),
    "x.permute(0, 2, 3, 1).amax(2)": ("aten.amax", mixes(channel_dim=2)),
    "x.unflatten(3, (7, 1)).amax(2, keepdim=True)": ("aten.amax", mixes()),
    # Channels among the axes that are reduced: the one value has one source.
    "x.amax((1, 2))": ("aten.amax", mixes(channel_dim=None)),
    "x.amin((1, 3), keepdim=True)": ("aten.amin", mixes()),
    # Windows folded into the batch, and heads of channels.
    "x.unflatten(2, (5, 1)).movedim(2, 1).flatten(0, 1).amax(3).unflatten(0, (-1, 5))": (
        "aten.amax",
        mixes(channel_dim=2),
    ),
    "x.unflatten(1, (3, 1)).amax(4)": ("aten.amax", mixes(channel_dim=(1, 2))),
}
WITH_INDEX = {
    "torch.max(x, 2)": "aten.max",
    "torch.max(x, -1, keepdim=True)": "aten.max",
    "torch.min(x, 3)": "aten.min",
}
CASES = (
    *(
        RuleCase(f"aten.max_pool{n}d", f"F.max_pool{n}d(x, {text})", mixes(), shape=SHAPES[n])
        for settings in (WINDOWS, DILATED)
        for n, texts in settings.items()
        for text in texts
    ),
    RuleCase(
        "aten.max_pool2d",
        "F.max_pool2d(x.movedim(2, 1).flatten(0, 1), 3, 2, 1).unflatten(0, (-1, 5))",
        mixes(channel_dim=2),
        shape=(2, 3, 5, 7, 5),
    ),
    *(
        RuleCase(
            f"aten.adaptive_max_pool{n}d", f"F.adaptive_max_pool{n}d(x, {text})", mixes(), shape=s
        )
        for n, s in SHAPES.items()
        for text in SIZES[n]
    ),
    RuleCase(
        "aten.max_pool2d_with_indices",
        "F.max_pool2d_with_indices(x, 3, 2, 1)",
        each(lambda case: mixes("F.max_pool2d(x, 3, 2, 1)")(case), no_label),
    ),
    *(RuleCase(name, code, truth) for code, (name, truth) in EXTREMES.items()),
    *(
        RuleCase(f"{name}.dim", code, each(mixes(f"{code}.values"), no_label))
        for code, name in WITH_INDEX.items()
    ),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_labels_are_those_of_the_positions_that_were_taken(case: RuleCase) -> None:
    with labeltrace.using_rules(labeltrace.FOLLOW_MAXIMA):
        fault = fault_of(case)
    assert fault is None, fault.message


def test_labels_are_gathered_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, images = torch.rand(2, 5, 7, 11), values(2, 13, 5, 7)
    window = ((3, 2), (2, 1), (1, 0), (1, 1))
    whole = follow_maxima.follow_pool(labels, images, *window)
    monkeypatch.setattr(follow_maxima, "LABELS_AT_ONCE", 5 * 2 * 11 * 3 * 6)
    torch.testing.assert_close(follow_maxima.follow_pool(labels, images, *window), whole)


def test_windows_in_the_padding_alone_take_the_mean() -> None:
    images, cells = values(1, 2, 3, 3), torch.eye(9).reshape(1, 9, 3, 3)
    layer = nn.MaxPool2d(2, 1, 1, dilation=4)
    assert bool(layer(images).isinf().any())
    labels = labeltrace.align(layer, rules=labeltrace.FOLLOW_MAXIMA)(images, cells)[1]
    lost = layer(images).isinf()[:, :1].expand_as(labels)
    assert torch.allclose(labels[lost], torch.tensor(1 / 9))
    torch.testing.assert_close(labels.sum(1), torch.ones_like(labels[:, 0]))


def test_what_is_padded_behind_them_is_the_mean_of_each_image() -> None:
    model = Code(lambda self, x: F.pad(F.max_pool2d(x, 2), (1, 0)))
    labels = torch.rand(5, 3, 4, 6).softmax(1)
    found = labeltrace.align(model, rules=labeltrace.FOLLOW_MAXIMA)(values(5, 2, 4, 6), labels)[1]
    torch.testing.assert_close(found[..., 0], labels.mean((2, 3))[..., None].expand(-1, -1, 2))


# Where there is nothing to follow, the filed rules serve.
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels alone": lambda x: x.amax(1),
    "no positions left": lambda x: F.max_pool2d(x.mean((2, 3), keepdim=True).expand_as(x), 2),
    "positions among channels": lambda x: F.pixel_unshuffle(x, 2).amax(1),
    "the batch too": lambda x: x.amax((0, 2)),
    "pooled mixing weights": lambda x: F.max_pool2d(x @ x.mT, 3, 1, 1) @ x,
    "mixing weights": lambda x: (x @ x.mT).amax(2, keepdim=True) @ x,
}


@pytest.mark.parametrize("name", OTHERS)
def test_all_else_is_as_ever(name: str) -> None:
    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return OTHERS[name](x)

    images = values(2, 3, 4, 6)
    plain = labeltrace.trace(Layer(), images)
    followed = labeltrace.trace(Layer(), images, rules=labeltrace.FOLLOW_MAXIMA)
    assert followed.nodes == plain.nodes


def test_a_model_in_half_precision_is_followed() -> None:
    model = Code(lambda self, x: F.max_pool2d(x, 2)).to(torch.bfloat16)
    images, cells = values(2, 3, 4, 6).bfloat16(), torch.eye(24).reshape(1, 24, 4, 6)
    labels = labeltrace.align(model, rules=labeltrace.FOLLOW_MAXIMA)(
        images, cells.expand(2, -1, -1, -1)
    )[1]
    shares = labels * 3  # of three channels, each takes one of four cells
    torch.testing.assert_close(shares, shares.round())
    assert bool((labels.sum(1) == 1).all())
