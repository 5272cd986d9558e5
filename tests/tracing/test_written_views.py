"""Writes into a view of a part: the label is what stands there in the end.

The same code runs on labels: in place of an image (B, C, H, W) a label for each value, (B, C, H, W,
K), averaged over channels at the end. A constant is the prior.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import labeltrace
from labeltrace.runtime.engine_choice import EngineName
from tests.helpers.code_module import Code

BATCH, CHANNELS, ROWS, COLUMNS = 3, 6, 5, 7
SOURCES = ROWS * COLUMNS


def rolled_in_place(x: Tensor) -> Tensor:
    o = x.clone()
    o[:, :, 1:] = x[:, :, :-1]
    return o


def strided(x: Tensor) -> Tensor:
    o = x.clone()
    o[:, :, ::2, 1::3] = x[:, :, 1:4, :2]
    return o


def several_in_a_row(x: Tensor) -> Tensor:
    o = x.clone()
    o[:, :, 1:] = x[:, :, :-1]
    o[:, :, :, 2:4] = x[:, :, :, 5:]
    o[:, :, 0] = x[:, :, 3]
    return o


def on_a_canvas(x: Tensor) -> Tensor:
    o = canvas(x, ROWS, COLUMNS)
    o[:, :, 1:3, 2:] = x[:, :, :2, :5]
    return o


def image_by_image(x: Tensor) -> Tensor:
    o = canvas(x, 9, 8)
    for index in range(len(x)):
        o[index, :, :ROWS, :COLUMNS].copy_(x[index])
    return o


def channels_in_turn(x: Tensor) -> Tensor:
    o = canvas(x, ROWS, COLUMNS)
    o[:, :2] = x[:, :2].flip(2)
    o[:, 2:] = x[:, 2:].flip(3)
    return o


def one_channel(x: Tensor) -> Tensor:
    o = x.clone()
    o[:, 1] = x[:, 1].flip(1)
    return o


def through_a_transpose(x: Tensor) -> Tensor:
    o = canvas(x, ROWS, 9)
    o.transpose(2, 3)[:, :, :COLUMNS] = x.transpose(2, 3)
    return o


def a_view_before_the_write(x: Tensor) -> Tensor:
    o = x.clone()
    part = o[:, :, :2]
    o.copy_(x.flip(3))
    return part + 0


def views_that_overlap(x: Tensor) -> Tensor:
    o = x.clone()
    first, second = o[:, :, :3], o[:, :, 2:]
    first.copy_(x[:, :, 2:])
    second.mul_(1)
    return second


def tokens_of_a_flat_view(x: Tensor) -> Tensor:
    o = x.clone()
    o.flatten(2, 3)[:, :, 10:20] = x.flatten(2, 3)[:, :, :10]
    return o


def a_view_of_a_view(x: Tensor) -> Tensor:
    o = x.clone()
    o[:, :, 0][:, :, 1:] = o[:, :, 1][:, :, 1:]
    return o


def half_of_the_batch(x: Tensor) -> Tensor:
    o = x.clone()
    o[len(x) // 2 :] = x[: len(x) - len(x) // 2].flip(3)
    return o


def halves_that_do_not_meet(x: Tensor) -> Tensor:
    """A view of one half is read after a write to the other, and a view of each column too."""
    o = x.clone()
    half = len(x) // 2
    later, columns = o[half:], o[:, :, :, 4:]
    o[:half, :, :, :4] = x[:half, :, :, :4].flip(2)
    return torch.cat([torch.cat([later, o[:half]])[:, :, :, :4], columns], 3)


def a_row_of_zeros(x: Tensor) -> Tensor:
    o = x.clone()
    o[:, :, 3] = canvas(x, ROWS, COLUMNS)[:, :, 0]
    return o


def nothing_of_the_image(x: Tensor) -> Tensor:
    o = canvas(x, ROWS, COLUMNS)
    o[:, :, 2:] = canvas(x, 3, COLUMNS)
    return x + 0 * o if x.dim() == 4 else x


MOVES: tuple[Callable[[Tensor], Tensor], ...] = (
    rolled_in_place,
    strided,
    several_in_a_row,
    on_a_canvas,
    image_by_image,
    channels_in_turn,
    one_channel,
    through_a_transpose,
    a_view_before_the_write,
    views_that_overlap,
    tokens_of_a_flat_view,
    a_view_of_a_view,
    half_of_the_batch,
    halves_that_do_not_meet,
    a_row_of_zeros,
    nothing_of_the_image,
)


def canvas(x: Tensor, rows: int, columns: int) -> Tensor:
    """Zeros; of labels, the prior."""
    if x.dim() == 4:
        return x.new_zeros(len(x), CHANNELS, rows, columns)
    return torch.full((len(x), CHANNELS, rows, columns, SOURCES), 1 / SOURCES)


def images() -> Tensor:
    drawn = torch.Generator().manual_seed(0)
    return torch.rand(BATCH, CHANNELS, ROWS, COLUMNS, generator=drawn)


def label_image() -> Tensor:
    own = torch.eye(SOURCES).view(ROWS, COLUMNS, SOURCES).permute(2, 0, 1)
    return own.expand(BATCH, -1, -1, -1)


def labels_of(code: Callable[[Any], Tensor], engine: EngineName) -> Tensor:
    """The labels of a second call: of the recorded engine, one that repeats the first."""
    aligned = labeltrace.align(Code(lambda self, x: code(x)), engine=engine)
    aligned(images(), label_image())
    outputs, labels = aligned(images(), label_image())
    assert torch.equal(outputs, code(images()))
    assert isinstance(labels, Tensor)
    return labels


@pytest.mark.parametrize("engine", ["captured", "recorded"])
@pytest.mark.parametrize("code", MOVES, ids=lambda code: code.__name__)
def test_what_is_written_stands_there(code: Callable[[Tensor], Tensor], engine: EngineName) -> None:
    by_channel = label_image().movedim(1, -1)[:, None].expand(-1, CHANNELS, -1, -1, -1)
    expected = code(by_channel.contiguous()).mean(1).movedim(-1, 1)
    torch.testing.assert_close(labels_of(code, engine), expected)


@pytest.mark.parametrize("engine", ["captured", "recorded"])
def test_what_is_added_is_a_residual_there(engine: EngineName) -> None:
    def code(x: Tensor) -> Tensor:
        o = x.clone()
        o[:, :, 2] += x[:, :, 0]
        return o.relu()

    expected = label_image().clone()
    expected[:, :, 2] = (expected[:, :, 2] + expected[:, :, 0]) / 2
    torch.testing.assert_close(labels_of(code, engine), expected)


@pytest.mark.parametrize("engine", ["captured", "recorded"])
def test_constant_channels_carry_nothing(engine: EngineName) -> None:
    def code(x: Tensor) -> Tensor:
        o = x.clone()
        o[:, 1:4] = x[:, 1:4].flip(2)
        o[:, 4:] = 0
        return o

    own = label_image()
    torch.testing.assert_close(labels_of(code, engine), (own + 3 * own.flip(2)) / 4)


@pytest.mark.parametrize("engine", ["captured", "recorded"])
def test_new_positions_of_a_moved_image_carry_its_prior(engine: EngineName) -> None:
    """Images are put on a canvas in another order; the zeros beside each belong to it."""

    def on_canvas(x: Tensor) -> Tensor:
        o = x.new_zeros(BATCH, CHANNELS, ROWS, COLUMNS)
        for index in range(BATCH):
            o[index] = x[BATCH - 1 - index]
        return o

    def by_index(x: Tensor) -> Tensor:
        o = torch.zeros_like(x)
        o[torch.tensor([2, 0])] = x[:2]
        o[1] = x[2]
        return o

    own = torch.rand(BATCH, 2, ROWS, COLUMNS, generator=torch.Generator().manual_seed(3)).softmax(1)
    prior = own.mean((2, 3), keepdim=True)
    for code, order in ((on_canvas, [2, 1, 0]), (by_index, [1, 2, 0])):
        padded = Code(lambda self, x, code=code: F.pad(code(x), (0, 1)))
        _, labels = labeltrace.align(padded, engine=engine)(images(), own)
        expected = torch.cat([own[order], prior[order].expand(-1, -1, ROWS, 1)], 3)
        torch.testing.assert_close(labels, expected)


def test_a_batch_that_is_always_even() -> None:
    """Each pair of images swaps them, through views of every second one."""

    def swap(x: Tensor) -> Tensor:
        pairs = x.unflatten(0, (len(x) // 2, 2))
        o = torch.zeros_like(pairs)
        o[:, 0] = pairs[:, 1]
        o[:, 1] = pairs[:, 0]
        return o.flatten(0, 1)

    own = torch.rand(4, 2, ROWS, COLUMNS, generator=torch.Generator().manual_seed(3)).softmax(1)
    aligned = labeltrace.align(Code(lambda self, x: swap(x)), engine="captured")
    for batch in (4, 2):
        x = torch.rand(batch, CHANNELS, ROWS, COLUMNS)
        _, labels = aligned(x, own[:batch])
        order = [1, 0, 3, 2][:batch]
        torch.testing.assert_close(labels, own[order])
