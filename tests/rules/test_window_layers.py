"""Windows cut out, mixed and laid back: whole layers against loops over windows and places."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.layers.halo_attn import HaloAttn
from timm.models.csatv2 import LearnableDct2d
from timm.models.volo import OutlookAttention
from torch import Tensor, nn

import labeltrace
from labeltrace import LayoutError

ROWS, COLUMNS, CHANNELS = 5, 7, 6
CELLS = ROWS * COLUMNS


class Layer(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def cells(batch: int, rows: int = ROWS, columns: int = COLUMNS) -> Tensor:
    """A source for each pixel, (B, cells, rows, columns)."""
    identity = torch.eye(rows * columns).reshape(1, -1, rows, columns)
    return identity.expand(batch, -1, -1, -1)


def randomised(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer.eval()


def close(found: Tensor, expected: Tensor) -> None:
    """Labels are at most one; features are larger, and so are their rounding errors."""
    largest = max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(found.double(), expected.double(), atol=1e-5 * largest, rtol=0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_outlook_attention_lays_its_windows_over_one_another() -> None:
    heads, kernel, stride = 3, 3, 2
    taps = list(itertools.product(range(kernel), repeat=2))
    layer = randomised(OutlookAttention(CHANNELS, heads, kernel, padding=1, stride=stride))
    images = torch.randn(2, ROWS, COLUMNS, CHANNELS)
    outputs, found = labeltrace.align(layer, channel_dim=-1)(images, cells(2))

    pooled = F.avg_pool2d(images.movedim(-1, 1), stride, stride, ceil_mode=True).movedim(1, -1)
    scores = layer.attn(pooled).unflatten(-1, (heads, len(taps), len(taps)))
    weights = (scores * (CHANNELS // heads) ** -0.5).softmax(-1)
    content = torch.cat([torch.eye(CELLS), torch.full((1, CELLS), 1 / CELLS)])  # and the prior
    values = F.pad(layer.v(images).reshape(2, CELLS, heads, -1), (0, 0, 0, 0, 0, 1))
    landed = [[[] for _ in range(CELLS)] for _ in range(2)]
    summed = torch.zeros(2, CELLS, heads, CHANNELS // heads)

    def pixel(window: tuple[int, int], tap: int) -> int:
        """The pixel under a tap of a window; the last one stands for the padding."""
        row, column = (w * stride - 1 + t for w, t in zip(window, taps[tap], strict=True))
        inside = 0 <= row < ROWS and 0 <= column < COLUMNS
        return row * COLUMNS + column if inside else CELLS

    for image in range(2):
        for window in itertools.product(*map(range, weights.shape[1:3])):
            seen = [pixel(window, tap) for tap in range(len(taps))]
            mixing = weights[(image, *window)]  # heads, to, from
            for to, target in enumerate(seen):
                if target < CELLS:
                    landed[image][target].append(mixing[:, to].mean(0) @ content[seen])
                    summed[image, target] += torch.einsum(
                        "hk,khc->hc", mixing[:, to], values[image, seen]
                    )
    expected = torch.stack([torch.stack([sum(x) / len(x) for x in one]) for one in landed])
    close(layer.proj(summed.flatten(2)).reshape(images.shape), outputs)  # the replica is right
    close(found, expected.reshape(2, ROWS, COLUMNS, CELLS))


@pytest.mark.parametrize("scale_pos_embed", [False, True])
def test_halo_attention_sees_beyond_its_blocks(scale_pos_embed: bool) -> None:
    heads, block, halo, width, rows, columns = 2, 3, 1, 4, 6, 9
    window = block + 2 * halo
    layer = HaloAttn(
        8,
        num_heads=heads,
        dim_head=width,
        block_size=block,
        halo_size=halo,
        scale_pos_embed=scale_pos_embed,
    )
    randomised(layer)
    images = torch.randn(2, 8, rows, columns)
    outputs, found = labeltrace.align(layer)(images, cells(2, rows, columns))

    queries = layer.q(images).unflatten(1, (heads, width))
    padded = F.pad(layer.kv(images), (halo,) * 4).unflatten(1, (heads, -1))
    keys, values = padded.split([width, padded.shape[2] - width], 2)
    image_of = cells(1, rows, columns)
    content = F.pad(image_of, (halo,) * 4, value=1 / (rows * columns))[0]
    content[:, halo:-halo, halo:-halo] = image_of[0]
    wide, high = layer.pos_embed.width_rel, layer.pos_embed.height_rel
    made = torch.zeros_like(outputs).unflatten(1, (heads, -1))
    for row, column in itertools.product(range(rows), range(columns)):
        top, left = row // block * block, column // block * block
        box = (..., slice(top, top + window), slice(left, left + window))
        query = queries[..., row, column]
        scores = torch.einsum("bhd,bhdyx->bhyx", query, keys[box])
        places = torch.arange(window) + window - 1
        biases = torch.einsum("bhd,xd->bhx", query, wide[places - column % block])[:, :, None]
        biases = biases + torch.einsum("bhd,yd->bhy", query, high[places - row % block])[..., None]
        scale = layer.scale
        scores = (scores + biases) * scale if scale_pos_embed else scores * scale + biases
        mixing = scores.flatten(2).softmax(-1).unflatten(2, (window, window))
        made[..., row, column] = torch.einsum("bhyx,bhdyx->bhd", mixing, values[box])
        expected = torch.einsum("byx,kyx->bk", mixing.mean(1), content[box])
        close(found[:, :, row, column], expected)
    close(made.flatten(1, 2), outputs)  # the replica is right


def test_cosine_transform_is_spatial_mixing_and_its_frequencies_are_contracted() -> None:
    size, rows, columns = 8, 16, 24
    layer = LearnableDct2d(size)
    kernel = layer.transform.transform.weights.double().abs()
    kernel = kernel / kernel.sum(1, keepdim=True)  # Norm of each frequency's row
    over_frequencies = kernel.mean(0)
    within = over_frequencies[:, None] * over_frequencies[None]
    labels = torch.rand(2, 3, rows, columns, generator=torch.Generator().manual_seed(0)).softmax(1)
    _, found = labeltrace.align(layer)(torch.randn(2, 3, rows, columns), labels)
    for row, column in itertools.product(range(rows // size), range(columns // size)):
        block = labels[..., size * row :, size * column :][..., :size, :size].double()
        close(found[..., row, column], (block * within).sum((2, 3)))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_of_blocks_of_rows_slides_over_rows(stride: int) -> None:
    """With channels beside the rows of a block, and where these are all that a map has."""
    layer = nn.Conv2d(6, 4, (2, 1), stride=(stride, 1))
    images, labels = torch.randn(2, 3, 10, COLUMNS), cells(2, 10, COLUMNS)
    taps = layer.weight.detach().abs().unflatten(1, (3, 2)).sum(1)  # out, row of a block, tap
    rows = taps.transpose(1, 2).flatten(1, 2)
    kernel = (rows / rows.sum((1, 2), keepdim=True)).mean(0)
    if stride == 2:  # tiles: aggregation
        kernel = torch.full((4, 1), 0.25)
    kernel = kernel.expand(labels.shape[1], 1, -1, -1)
    expected = F.conv2d(labels, kernel, stride=(2 * stride, 1), groups=labels.shape[1])

    def whole(x: Tensor) -> Tensor:
        return layer(x.unflatten(2, (5, 2)).permute(0, 1, 3, 2, 4).flatten(1, 2))

    def alone(x: Tensor) -> Tensor:
        return layer(x[:, 1].unflatten(1, (5, 2)).transpose(1, 2).repeat(1, 3, 1, 1))

    close(labeltrace.align(Layer(whole))(images, labels)[1], expected)
    close(labeltrace.align(Layer(alone))(images, labels)[1], expected)


def test_padding_that_windows_see_carries_the_prior() -> None:
    labels = torch.rand(2, 3, ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)).softmax(1)
    prior = labels.mean((2, 3))

    def first_place(x: Tensor) -> Tensor:
        return F.unfold(x, (3, 2), padding=(2, 0)).unflatten(1, (-1, 6))[:, :, 0]

    images = torch.randn(2, CHANNELS, ROWS, COLUMNS)
    _, found = labeltrace.align(Layer(first_place))(images, labels)
    found = found.unflatten(2, (7, 6))
    close(found[:, :, :2], prior[:, :, None, None].expand(-1, -1, 2, 6))
    close(found[:, :, 2:], labels[..., :6])


@pytest.mark.parametrize(
    ("function", "dim"),
    [
        (lambda x: F.unfold(x, 2), 1),
        (lambda x: F.unfold(x[:, :, :1, :1], 2, padding=1), 1),
        (lambda x: x.unfold(2, 3, 1).flatten(3), 1),
        (lambda x: x.unfold(1, 2, 2), 4),
        (lambda x: F.fold(x[..., 0, 0].repeat_interleave(4, 1)[..., None], (2, 2), 2), 1),
    ],
)
def test_windows_of_one_label_have_that_label(
    function: Callable[[Tensor], Tensor], dim: int
) -> None:
    labels = torch.rand(2, 3, ROWS, COLUMNS).softmax(1)
    model = Layer(lambda x: function(x.mean((2, 3), keepdim=True).expand_as(x)))
    outputs, found = labeltrace.align(model)(torch.randn(2, 6, ROWS, COLUMNS), labels)
    sources = found.movedim(dim, -1)
    assert sources.shape[:-1] == outputs.select(dim, 0).shape
    mean = labels.mean((2, 3)).reshape(2, *(1 for _ in sources.shape[2:]), 3)
    close(sources, mean.expand_as(sources))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.transpose(1, 2).flatten(1, 2).unfold(1, 4, 4),  # rows of channels
        lambda x: F.fold(  # two positions by two channels stand in the place of four taps
            x.unflatten(2, (3, 2)).unflatten(1, (4, 2)).permute(0, 1, 3, 4, 2, 5).flatten(1, 4),
            (2, COLUMNS + 1),
            (2, 2),
        ),
    ],
)
def test_windows_across_positions_and_channels_are_an_error(
    function: Callable[[Tensor], Tensor],
) -> None:
    with pytest.raises(LayoutError):
        labeltrace.trace(Layer(function), torch.randn(2, 8, 6, COLUMNS))
