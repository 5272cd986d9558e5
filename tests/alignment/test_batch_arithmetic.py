"""Sizes computed from the batch: labels are right for every batch size, whatever was captured.

Each function below moves or averages whole images, and treats all channels alike. So it is its own
replica: the label of its output is the function of the label image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import labeltrace

CHANNELS, SOURCES, ROWS, COLUMNS = 3, 2, 4, 6
SIZES = (2, 3, 5, 7, 8, 11)

Move = Callable[[Tensor], Tensor]


def swapped(x: Tensor) -> Tensor:
    half = x.shape[0] // 2
    return torch.cat([x[half:], x[:half]])


def thirds_mixed_up(x: Tensor) -> Tensor:
    first, second, third = x.tensor_split(3)
    return torch.cat([third, first, second])


def later_half_twice(x: Tensor) -> Tensor:
    half = x.shape[0] // 2
    return torch.cat([x[half:], x[half:].flip(0), x[:1]])


def frames_in_the_batch(x: Tensor) -> Tensor:
    """A video model's fold: rows become frames in the batch, of which some are dropped."""
    folded = x.permute(0, 2, 1, 3).flatten(0, 1)
    kept = folded.unflatten(0, (x.shape[0], ROWS))[:, 1:].flatten(0, 1)
    return kept.flip(0)[: kept.shape[0] - 1]


MOVES: dict[str, Move] = {
    "first chunk": lambda x: x.chunk(2)[0],
    "last chunk": lambda x: x.chunk(3)[-1],
    "halves swapped": swapped,
    "chunks swapped": lambda x: torch.cat(x.chunk(2)[::-1]),
    "second half": lambda x: x[x.shape[0] // 2 :],
    "all but the last": lambda x: x[:-1],
    "all but the first": lambda x: x[1:],
    "last two": lambda x: x[-2:],
    "last one": lambda x: x[-1:],
    "one in the middle": lambda x: x[x.shape[0] // 2],
    "every other": lambda x: x[::2],
    "every third from the second": lambda x: x[1::3],
    "split in halves": lambda x: x.split(x.shape[0] // 2)[1],
    "split sizes": lambda x: x.split([x.shape[0] - 1, 1])[0],
    "split of two": lambda x: x.split(2)[-1],
    "narrow": lambda x: x.narrow(0, 1, x.shape[0] - 1),
    "tensor_split": lambda x: x.tensor_split(2)[1],
    "thirds": thirds_mixed_up,
    "unbound by an index": lambda x: x.index_select(0, torch.arange(x.shape[0] - 1, -1, -1)),
    "rolled": lambda x: x.roll(1, 0),
    "rolled by half": lambda x: x.roll(x.shape[0] // 2, 0),
    "flipped": lambda x: x.flip(0),
    "flipped and halved": lambda x: x.flip(0)[: x.shape[0] // 2],
    "two views": lambda x: torch.cat([x, x.flip(3)]).chunk(2)[1],
    "two views averaged": lambda x: sum(torch.cat([x, x.flip(3)]).chunk(2)) / 2,
    "two views viewed": lambda x: torch.cat([x, x.flip(3)]).view(2, -1, *x.shape[1:]).mean(0),
    "repeated": lambda x: x.repeat(2, 1, 1, 1),
    "repeated and cut": lambda x: x.repeat(3, 1, 1, 1)[x.shape[0] + 1 :],
    "interleaved": lambda x: x.repeat_interleave(3, 0),
    "interleaved and cut": lambda x: x.repeat_interleave(3, 0)[: x.shape[0]],
    "stacked": lambda x: torch.stack([x, x.flip(3)]).flatten(0, 1),
    "stacked inside": lambda x: torch.stack([x, x.flip(2)], 1).flatten(0, 1)[1:],
    "expanded": lambda x: x[:1].expand(x.shape[0], -1, -1, -1),
    "later half twice": later_half_twice,
    "frames": frames_in_the_batch,
}
"""Functions of any batch; labels are the function of the label image."""

OF_EVEN_BATCHES: dict[str, Move] = {
    "unflatten": lambda x: x.unflatten(0, (2, x.shape[0] // 2)).mean(0),
    "unflatten inside": lambda x: x.unflatten(0, (x.shape[0] // 2, 2)).flip(1).flatten(0, 1),
    "view of pairs": lambda x: x.view(x.shape[0] // 2, 2, *x.shape[1:]).mean(1),
    "view in two": lambda x: x.view(2, -1, *x.shape[1:])[1],
    "halves averaged": lambda x: (x[: x.shape[0] // 2] + x[x.shape[0] // 2 :]) / 2,
}
"""Functions that take no odd batch."""


class Moved(nn.Module):
    """A function as a module; `tokens` joins a token of no image to each row's positions."""

    def __init__(self, move: Move, *, tokens: bool = False) -> None:
        super().__init__()
        self.move = move
        self.tokens = tokens
        self.token = nn.Parameter(torch.zeros(1, 1, CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        moved = self.move(x)
        if not self.tokens:
            return moved
        features = moved.flatten(2).mT
        return torch.cat([self.token.expand(features.shape[0], -1, -1), features], 1)


def inputs(batch: int, rank: int = 4) -> tuple[Tensor, Tensor]:
    """Images, and label images that differ at every pixel."""
    generator = torch.Generator().manual_seed(batch)
    images = torch.rand(batch, CHANNELS, ROWS, COLUMNS, generator=generator)
    labels = torch.rand(batch, SOURCES, ROWS, COLUMNS, generator=generator)
    return images, labels / labels.sum(1, keepdim=True)


def with_prior(moved: Tensor) -> Tensor:
    """The labels (B, 1 + N, K) of tokens after a token of no image, from moved label images."""
    features = moved.flatten(2).mT
    return torch.cat([features.mean(1, keepdim=True), features], 1)


def check(aligned: labeltrace.AlignedModule, expected: Move, batches: tuple[int, ...]) -> None:
    for batch in batches:
        images, labels = inputs(batch)
        outputs, found = aligned(images, labels)
        assert torch.equal(outputs, aligned.module(images)), batch
        torch.testing.assert_close(found, expected(labels), atol=1e-6, rtol=0, msg=str(batch))


def runs(move: Move, batches: tuple[int, ...]) -> tuple[int, ...]:
    """The batches that a function takes."""

    def takes(batch: int) -> Iterator[int]:
        try:
            move(inputs(batch)[0])
        except (RuntimeError, IndexError, ValueError):
            return
        yield batch

    return tuple(size for batch in batches for size in takes(batch))


every_move = pytest.mark.parametrize("name", [*MOVES, *OF_EVEN_BATCHES])


@pytest.mark.parametrize("captured", [8, 5])
@every_move
def test_labels_of_moved_samples(name: str, captured: int) -> None:
    move = (MOVES | OF_EVEN_BATCHES)[name]
    if name in OF_EVEN_BATCHES:
        captured = 8
    aligned = labeltrace.align(Moved(move), inputs(captured)[0])
    check(aligned, move, runs(move, SIZES))


@every_move
def test_prior_of_moved_samples(name: str) -> None:
    """A token joined to a row has the prior of the image that is in this row."""
    move = (MOVES | OF_EVEN_BATCHES)[name]
    if move(inputs(8)[0]).dim() != 4:
        pytest.skip("no batch is left")
    aligned = labeltrace.align(Moved(move, tokens=True), inputs(8)[0])
    rows = move if name != "frames" else lambda labels: move(labels)
    if name == "frames":
        return
    check(aligned, lambda labels: with_prior(rows(labels)), runs(move, SIZES))
