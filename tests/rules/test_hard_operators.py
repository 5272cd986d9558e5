"""Operators that are more than their names say, each against the same function spelled plainly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace
from tests.helpers.code_module import Code


def labels_of(model: nn.Module, images: Tensor) -> Tensor:
    """The provenance of every output position: the label image is the identity."""
    rows, columns = images.shape[-2:]
    identity = torch.eye(rows * columns).reshape(1, -1, rows, columns)
    return labeltrace.align(model)(images, identity.expand(len(images), -1, -1, -1))[1]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Convolutions. ------------------------------------------------------------------------------------


def blocks_to_channels(x: Tensor, rows: int, columns: int, channels_first: bool) -> Tensor:
    """(B, C, H, W) to (B, rows * columns * C, H / rows, W / columns)."""
    x = x.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))  # (B, C, h, rows, w, columns)
    order = (0, 1, 3, 5, 2, 4) if channels_first else (0, 3, 5, 1, 2, 4)
    return x.permute(order).flatten(1, 3)


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 3), (1, 1), (1, 1)), ((3, 2), (2, 1), (0, 1)), ((2, 3), (2, 3), (0, 0))],
    ids=["padded", "strided", "aggregating"],
)
def test_convolution_of_blocks_is_the_convolution_of_pixels(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], channels_first: bool
) -> None:
    """TResNet's stem: over blocks of 2 x 3 pixels, a kernel is one of pixels with a stride."""
    small = nn.Conv2d(2 * 3 * 5, 7, kernel, stride, padding)
    large = nn.Conv2d(
        5,
        7,
        (2 * kernel[0], 3 * kernel[1]),
        (2 * stride[0], 3 * stride[1]),
        (2 * padding[0], 3 * padding[1]),
    )
    split = (5, 2, 3) if channels_first else (2, 3, 5)
    order = (0, 1, 4, 2, 5, 3) if channels_first else (0, 3, 4, 1, 5, 2)
    with torch.no_grad():
        weight = small.weight.unflatten(1, split).permute(order)  # out, c, kernel, 2, kernel, 3
        large.weight.copy_(weight.flatten(4, 5).flatten(2, 3))
        large.bias.copy_(small.bias)
    images = random(2, 5, 2 * 7, 3 * 11)
    model = Code(lambda self, x: self.conv(blocks_to_channels(x, 2, 3, channels_first)), conv=small)
    torch.testing.assert_close(model(images), large(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(labels_of(model, images), labels_of(large, images))


def test_grouped_convolution_of_blocks_is_refused() -> None:
    """Its output channels would stand for different pixels."""
    conv = nn.Conv2d(30, 30, 3, padding=1, groups=30)
    model = Code(lambda self, x: self.conv(blocks_to_channels(x, 2, 3, False)), conv=conv)
    with pytest.raises(labeltrace.LayoutError, match="positions in its channel axis"):
        labeltrace.align(model, torch.randn(2, 5, 14, 33))


def test_convolution_over_rows_columns_and_channels_passes_channels_by() -> None:
    """A lambda layer's position lambdas: a 3d kernel that is one tap long along the channels."""
    kernel = nn.Parameter(random(4, 1, 3, 5, 1))
    solid = Code(
        lambda self, x: F.conv3d(x.movedim(1, -1)[:, None], self.kernel, padding=(1, 2, 0)).mean(
            -1
        ),
        kernel=kernel,
    )
    flat = Code(
        lambda self, x: F.conv2d(x.mean(1, keepdim=True), self.kernel[..., 0], padding=(1, 2)),
        kernel=kernel,
    )
    images = random(2, 2, 7, 11)
    torch.testing.assert_close(solid(images), flat(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(labels_of(solid, images), labels_of(flat, images))


# Pixels to channels and back. --------------------------------------------------------------------


def test_pixels_that_become_channels_find_their_places_again() -> None:
    there_and_back = nn.Sequential(nn.PixelUnshuffle(2), nn.ReLU(), nn.PixelShuffle(2))
    images = random(2, 3, 2 * 5, 2 * 7)
    identity = torch.eye(140).reshape(1, 140, 10, 14).expand(2, -1, -1, -1)
    assert torch.equal(labels_of(there_and_back, images), identity)
    halves = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 5, 1))
    assert torch.equal(labels_of(halves, images), F.avg_pool2d(identity, 2))


def test_channels_that_become_pixels_have_the_label_of_their_position() -> None:
    upsampler = nn.Sequential(nn.Conv2d(3, 2 * 9, 1), nn.PixelShuffle(3), nn.Conv2d(2, 5, 3))
    images = random(2, 3, 5, 7)
    plain = nn.Sequential(nn.Upsample(scale_factor=3), upsampler[2])
    plain_images = random(2, 2, 5, 7)
    torch.testing.assert_close(labels_of(upsampler, images), labels_of(plain, plain_images))


# Weighted sums. ----------------------------------------------------------------------------------

SCORES = {
    "one map": (lambda self, t: self.score(t).softmax(1), 1),
    "a map for each channel": (lambda self, t: self.score(t).softmax(1), 3),
}
SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "einsum": lambda t, w: torch.einsum("bnc,bnc->bc", t, w.expand_as(t)),
    "sum": lambda t, w: (t * w).sum(1),
    "mean": lambda t, w: (w * t).mean(1),
    "kept": lambda t, w: (2 * (t * w)).sum(1, keepdim=True)[:, 0],
}


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("spelling", SUMS)
def test_a_sum_of_products_with_attention_is_attention(spelling: str, scores: str) -> None:
    score, count = SCORES[scores]
    model = Code(
        lambda self, x: SUMS[spelling](x.flatten(2).mT, score(self, x.flatten(2).mT)),
        score=nn.Linear(3, count),
    )
    images = random(2, 3, 5, 7)
    with torch.no_grad():
        expected = score(model, images.flatten(2).mT).mean(2)
    torch.testing.assert_close(labels_of(model, images), expected)
    assert not labeltrace.trace(model, images).approximate


def test_a_sum_over_other_positions_than_those_of_the_weights_is_their_mean() -> None:
    """Weights over rows alone: along the columns every position counts alike."""
    model = Code(lambda self, x: (x * x.mean(3, keepdim=True).softmax(2)).sum(3))
    images = random(2, 3, 5, 7)
    mean = torch.eye(35).reshape(1, 35, 5, 7).mean(3).expand(2, -1, -1)
    torch.testing.assert_close(labels_of(model, images), mean)
    assert not labeltrace.trace(model, images).approximate
    both = Code(lambda self, x: (x * x.mean(3, keepdim=True).softmax(2)).sum((2, 3)))
    (node,) = labeltrace.trace(both, images).approximate
    assert "not applied" in node.approximation


def test_a_sum_over_rows_and_channels_in_one_axis_is_a_mean_and_says_so() -> None:
    """Weights of each row and channel: no row has one of its own."""
    model = Code(
        lambda self, x: (x.flatten(1, 2) * self.weights).sum(1), weights=nn.Parameter(random(15, 1))
    )
    images = random(2, 3, 5, 7)
    mean = torch.eye(35).reshape(35, 5, 7).mean(1).mT.expand(2, -1, -1)
    torch.testing.assert_close(labels_of(model, images), mean)
    (node,) = labeltrace.trace(model, images).approximate
    assert "not applied" in node.approximation


def test_channels_that_are_scaled_and_summed_are_mixed() -> None:
    """Weights of channels are none of positions, whatever is summed later on."""
    model = Code(
        lambda self, x: (x * self.scale).sum(1).mean(1), scale=nn.Parameter(random(3, 1, 1))
    )
    trace = labeltrace.trace(model, random(2, 3, 5, 7))
    assert [str(node.operation) for node in trace.nodes if node.operator == "aten.sum"] == [
        "channel mixing"
    ]
    assert not trace.approximate


# Writes in place. --------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [2, 5])
def test_relative_positions_may_be_written_into_scores(tokens: int) -> None:
    """One token's window of scores (MViT v2 on a tiny image) has no axis of positions left."""

    def scores(self: Any, x: Tensor) -> Tensor:
        t = x.flatten(2).mT  # (B, N, C)
        found, rest = t @ t.mT, t.shape[1] - 1
        relative = torch.einsum("bqhc,khc->bqhk", t[:, 1:, None], self.relative[:rest])
        window = found[:, 1:, 1:].view(-1, rest, 1, rest) + relative
        found[:, 1:, 1:] = window.view(-1, rest, rest)
        return found.softmax(-1)

    model = Code(
        lambda self, x: scores(self, x) @ x.flatten(2).mT, relative=nn.Parameter(random(4, 1, 3))
    )
    images = random(2, 3, 1, tokens)
    with torch.no_grad():
        expected = scores(model, images)
    identity = torch.eye(tokens).reshape(1, -1, 1, tokens).expand(2, -1, -1, -1)
    labels = labeltrace.align(model)(images, identity)[1]
    torch.testing.assert_close(labels, expected)


def test_what_is_written_over_a_whole_tensor_is_that_tensor() -> None:
    """One pooled query, whose scores are written in place through a slice that cuts nothing."""

    def scores(self: Any, t: Tensor) -> Tensor:
        query = t.mean(1, keepdim=True)
        found = query @ t.mT
        relative = torch.einsum("bqc,kc->bqk", query, self.relative)
        found[:, 0:, 0:] = found[:, 0:, 0:] + relative
        return found.softmax(-1)

    def tokens(x: Tensor) -> Tensor:
        return x.flatten(2).mT

    model = Code(
        lambda self, x: scores(self, tokens(x)) @ tokens(x), relative=nn.Parameter(random(5, 3))
    )
    images = random(2, 3, 1, 5)
    with torch.no_grad():
        expected = scores(model, tokens(images))
    torch.testing.assert_close(labels_of(model, images).flatten(), expected.flatten())
