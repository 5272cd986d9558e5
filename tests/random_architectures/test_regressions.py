"""Faults that random architectures have found, each with the smallest model that shows it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace
from labeltrace import LayoutError
from tests.helpers.code_module import Code
from tests.random_architectures.contract import (
    assert_distributions,
    check_batch,
    check_contract,
    check_sources,
)
from tests.random_architectures.inputs import identity
from tests.random_architectures.modules import Attention, fused
from tests.random_architectures.state import Architecture, Promise


def image_mean(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def repeated_mean(x: Tensor) -> Tensor:
    return image_mean(x).expand_as(x)


def attention_of_one_label(self: nn.Module, x: Tensor) -> Tensor:
    tokens = repeated_mean(x).flatten(2).mT
    return F.scaled_dot_product_attention(tokens, tokens, tokens).mT.view_as(x)


def attention_of_one_token(self: Any, x: Tensor) -> Tensor:
    token = torch.tanh(x).mean((2, 3)).tanh()[:, None]
    return (token @ token.mT).softmax(-1) @ self.layer(token)


REGRESSIONS: dict[str, tuple[nn.Module, int]] = {
    "positions_repeated_by_a_view": (
        Code(lambda self, x: x[..., None].expand(-1, -1, -1, -1, 2).flatten(3)),
        1,
    ),
    "windows_in_the_padding_alone": (nn.Conv2d(2, 3, 1, padding=1), 1),
    "more_padding_than_kernel": (nn.Conv2d(2, 3, 3, padding=3), 1),
    "dilated_pool_with_ceil_mode": (nn.MaxPool2d(2, 2, dilation=2, ceil_mode=True), 1),
    "dilated_pool_whose_taps_are_all_padding": (nn.MaxPool2d(2, 1, 1, dilation=6), 1),
    "joined_piece_repeated_along_another_axis": (
        Code(lambda self, x: torch.cat([x, x.mean(3, keepdim=True).expand_as(x)], 2)),
        1,
    ),
    "pieces_without_channels_before_others": (
        Code(
            lambda self, x: torch.cat([self.layer(x)[:, :0], x[:, :0], x], 1),
            layer=nn.Conv2d(2, 3, 3, 1, 1),
        ),
        1,
    ),
    "convolution_of_one_label_repeated": (
        Code(lambda self, x: self.layer(repeated_mean(x)), layer=nn.Conv2d(2, 3, 3)),
        1,
    ),
    "pool_of_one_label_repeated": (Code(lambda self, x: F.avg_pool2d(repeated_mean(x), 2)), 1),
    "spatial_mixing_into_one_row": (nn.Linear(5, 1), 1),
    "spatial_mixing_of_one_row": (
        Code(lambda self, x: self.layer(x[:, :, :1].mT).mT, layer=nn.Linear(1, 1)),
        1,
    ),
    "positions_repeated_in_the_output": (Code(lambda self, x: x.repeat_interleave(2, 3)), 1),
    "convolution_of_repeated_positions": (
        Code(lambda self, x: self.layer(x.repeat(1, 1, 2, 1)), layer=nn.Conv2d(2, 3, 3)),
        1,
    ),
    "slice_of_repeated_positions": (
        Code(lambda self, x: x.repeat_interleave(2, 3)[..., ::3]),
        1,
    ),
    "linear_layer_over_an_axis_of_one": (
        Code(lambda self, x: self.layer(x.mean(3, keepdim=True)), layer=nn.Linear(1, 3)),
        1,
    ),
    "fused_attention_of_one_label": (Code(attention_of_one_label), 1),
    "bounded_scores_of_one_bounded_token": (
        Code(attention_of_one_token, layer=nn.Linear(2, 3)),
        2,
    ),
    "join_of_one_label": (Code(lambda self, x: torch.cat([image_mean(x)] * 2, 2)), 1),
    "padding_of_one_label": (Code(lambda self, x: F.pad(image_mean(x), (1, 2))), 1),
    "index_of_one_label": (
        Code(lambda self, x: image_mean(x)[:, :, self.index], index=torch.tensor([0, 0])),
        1,
    ),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_regressions(name: str) -> None:
    model, channel_dim = REGRESSIONS[name]
    architecture = Architecture(model, (6, 5), channel_dim, Promise.NONE)
    check_contract(architecture, labeltrace.align(model), False)


def test_grouped_transposed_convolution_normalizes_every_output_channel() -> None:
    """Two depth-wise kernels count alike, however large one is (contract, point 4)."""
    layer = nn.ConvTranspose1d(2, 2, 2, stride=1, groups=2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[1.0, 3.0]], [[300.0, 100.0]]]))
    labels = torch.eye(3)[None]
    moved = labeltrace.align(layer)(torch.randn(1, 2, 3), labels)[1]
    # Each kernel by itself is (1/4, 3/4) and (3/4, 1/4): together (1/2, 1/2).
    torch.testing.assert_close(moved[0, :, 1], torch.tensor([0.5, 0.5, 0.0]))


@pytest.mark.parametrize(
    ("repeated", "widths"),
    [(1, (1, 2)), (1, (1, 0, 2, 1)), (3, (0, 0, 1, 2)), (3, (0, 0, -1, 2)), (3, (0, 0, -1, -1))],
)
def test_constants_next_to_one_label_carry_the_prior(
    repeated: int, widths: tuple[int, ...]
) -> None:
    """Also along an axis on which nothing varies, where another one has the channels."""

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return F.pad(x.mean(2, keepdim=True).expand(-1, -1, repeated, -1), widths)

    images = torch.randn(2, 2, 6, 5)
    cells = torch.eye(30).reshape(1, -1, 6, 5).expand(2, -1, -1, -1)
    moved = labeltrace.align(Code(forward))(images, cells)[1]
    expected = F.pad(cells.mean(2, keepdim=True).expand(-1, -1, repeated, -1), widths, value=-1)
    expected = expected.where(expected >= 0, 1 / 30)
    torch.testing.assert_close(moved, expected)


def test_padding_of_several_axes_next_to_one_label_says_what_to_do() -> None:
    model = Code(lambda self, x: F.pad(x.mean(2, keepdim=True).expand(-1, -1, 3, -1), (1, 0, 1, 0)))
    message = "several axes are padded at once, one of which repeats a label: axis 2 .* one after"
    with pytest.raises(LayoutError, match=message):
        labeltrace.trace(model, torch.randn(2, 2, 6, 5))


SIZE_ONE_CASES: dict[str, tuple[nn.Module, tuple[int, int], bool]] = {
    "one_row_and_columns": (
        nn.Sequential(
            Code(lambda self, x: x.transpose(2, 3).flatten(2).mT),
            Attention(2, 1, 11, fused, "none"),
        ),
        (1, 11),
        False,
    ),
    "batch_of_one_and_tokens": (
        nn.Sequential(
            Code(lambda self, x: x.flatten(2).transpose(1, 2)),
            Code(
                lambda self, x: self.layer(x, x, x, need_weights=False)[0],
                layer=nn.MultiheadAttention(2, 1, batch_first=True),
            ),
            Code(
                lambda self, x: torch.cat([x, self.token.expand(len(x), -1, -1)], dim=-2),
                token=nn.Parameter(torch.ones(1, 1, 2)),
            ),
        ),
        (6, 5),
        True,
    ),
}


@pytest.mark.parametrize("name", SIZE_ONE_CASES)
def test_axes_of_size_one_stay_positions(name: str) -> None:
    model, image_size, prior = SIZE_ONE_CASES[name]
    architecture = Architecture(model, image_size, 2, Promise.EQUAL, prior)
    aligned = labeltrace.align(model)
    check_contract(architecture, aligned, training=False)
    check_batch(architecture, aligned, [2, 0, 1])
    check_sources(architecture, aligned)


def test_batch_norm_of_one_row_with_channels_last() -> None:
    """Its gradient, as PyTorch has it, names other columns than the one that is read."""
    model = nn.Sequential(
        Code(lambda self, x: x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)),
        nn.BatchNorm2d(2),
        Code(lambda self, x: x[:, :, 0, -1]),
    )
    architecture = Architecture(model, (1, 11), 1, Promise.EQUAL)
    check_sources(architecture, labeltrace.align(model))


def test_additive_mask_of_a_model_in_double_precision() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        return F.scaled_dot_product_attention(tokens, tokens, tokens, self.mask)

    model = Code(forward, mask=torch.zeros(30, 30, dtype=torch.float64))
    images = torch.randn(2, 2, 6, 5, dtype=torch.float64)
    architecture = Architecture(model, (6, 5), 2, Promise.NONE)
    labels = labeltrace.align(model)(images, identity(architecture, 2))[1]
    assert_distributions(labels, 2)
