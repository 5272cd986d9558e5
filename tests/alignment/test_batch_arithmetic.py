"""Sizes computed from the batch: labels are right for every batch size, whatever was captured.

Each function below moves or averages whole images, and treats all channels alike. So it is its own
replica: the label of its output is the function of the label image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import labeltrace
from labeltrace.errors import LayoutError
from tests.random_architectures.examples import examples
from tests.random_architectures.inputs import images_of
from tests.random_architectures.state import Architecture
from tests.random_architectures.strategy import architectures

CHANNELS, SOURCES, ROWS, COLUMNS = 3, 2, 4, 6
SIZES = (1, 2, 3, 5, 7, 8, 11)

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
    "pairs": lambda x: ((x[:, None] + x[None]) / 2).flip(0).flatten(0, 1),
    "frames": frames_in_the_batch,
}
"""Functions of any batch; labels are the function of the label image."""

WITHOUT_IMAGES = ("frames", "one in the middle", "pairs")
"""Their results have no rows of whole images."""

OF_EVEN_BATCHES: dict[str, Move] = {
    "unflatten": lambda x: x.unflatten(0, (2, x.shape[0] // 2)).mean(0),
    "unflatten inside": lambda x: x.unflatten(0, (x.shape[0] // 2, 2)).flip(1).flatten(0, 1),
    "view of pairs": lambda x: x.view(x.shape[0] // 2, 2, *x.shape[1:]).mean(1),
    "view in two": lambda x: x.view(2, -1, *x.shape[1:])[1],
    "halves averaged": lambda x: (x[: x.shape[0] // 2] + x[x.shape[0] // 2 :]) / 2,
}
"""Functions that take no odd batch."""


MOVED_FIRST: dict[str, Move] = {
    "flipped": lambda x: x.flip(0),
    "swapped": swapped,
    "all but the first": lambda x: x[1:],
    "two views": lambda x: torch.cat([x, x.flip(0)]),
    "interleaved": lambda x: x.repeat_interleave(2, 0),
    "every other": lambda x: x[::2],
}
"""Functions before a model, which leave several images."""


class Behind(nn.Module):
    """A model behind a function."""

    def __init__(self, move: Move, model: nn.Module) -> None:
        super().__init__()
        self.move = move
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.move(x))


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


def inputs(batch: int) -> tuple[Tensor, Tensor]:
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


def runs(move: Move) -> tuple[int, ...]:
    """The batches that a function takes."""

    def takes(batch: int) -> bool:
        try:
            move(inputs(batch)[0])
        except (RuntimeError, IndexError):
            return False
        return True

    return tuple(filter(takes, SIZES))


EVERY_MOVE = MOVES | OF_EVEN_BATCHES

every_move = pytest.mark.parametrize("name", EVERY_MOVE)


@pytest.mark.parametrize("captured", [8, 5])
@every_move
def test_labels_of_moved_samples(name: str, captured: int) -> None:
    captured = 8 if name in OF_EVEN_BATCHES else captured
    aligned = labeltrace.align(Moved(EVERY_MOVE[name]), inputs(captured)[0])
    check(aligned, EVERY_MOVE[name], runs(EVERY_MOVE[name]))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", [name for name in EVERY_MOVE if name not in WITHOUT_IMAGES])
def test_a_new_token_has_the_prior_of_the_image_in_its_row(name: str, training: bool) -> None:
    move = EVERY_MOVE[name]
    model = Moved(move, tokens=True).train(training)
    aligned = labeltrace.align(model, inputs(8)[0])
    check(aligned, lambda labels: with_prior(move(labels)), runs(move))


class TwoImagesInARow(nn.Module):
    """A token, the tokens of one image, and those of another one; then the samples move."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.flatten(2).mT, x.flip(0).flatten(2).mT
        joined = torch.cat([self.token.expand(x.shape[0], -1, -1), one, other], 1)
        return torch.cat([self.token.expand(x.shape[0], -1, -1), joined.roll(1, 0)], 1)


def test_a_row_of_several_images_has_the_mean_of_their_priors() -> None:
    aligned = labeltrace.align(TwoImagesInARow(), inputs(8)[0])
    for batch in (3, 5):
        images, labels = inputs(batch)
        fields = labels.flatten(2).mT
        prior = fields.mean(1, keepdim=True)
        mean = (prior + prior.flip(0)) / 2
        joined = torch.cat([mean, fields, fields.flip(0)], 1).roll(1, 0)
        found = aligned(images, labels)[1]
        torch.testing.assert_close(found[:, 1:], joined, atol=1e-6, rtol=0)
        # The second token's row is the first one's, one sample later.
        torch.testing.assert_close(found[:, 0], mean[:, 0].roll(1, 0), atol=1e-6, rtol=0)


@every_move
def test_plain_integers_are_followed_as_well(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is fixed: every size is an integer."""
    monkeypatch.setattr("labeltrace.capture.capture._try_dynamic", lambda *_: (None, "fixed here"))
    move = EVERY_MOVE[name]
    for batch in (size for size in runs(move) if size in (1, 4, 7, 8)):
        plain = labeltrace.align(Moved(move), inputs(batch)[0])
        assert not plain.trace(inputs(batch)[0]).capture.batch.dynamic
        check(plain, move, (batch,))
        if name not in WITHOUT_IMAGES:
            joined = labeltrace.align(Moved(move, tokens=True), inputs(batch)[0])
            check(joined, lambda labels: with_prior(move(labels)), (batch,))


@examples(12)
@given(architectures(), st.sampled_from(sorted(MOVED_FIRST)))
def test_any_model_behind_moved_samples(architecture: Architecture, name: str) -> None:
    """The model's labels for moved images are those of the model alone, on images moved before."""
    move = MOVED_FIRST[name]
    model = architecture.model.eval()
    alone, behind = labeltrace.align(model), labeltrace.align(Behind(move, model))
    for batch in (6, 5):  # captured with the first
        images = images_of(architecture, batch)
        labels = torch.rand(batch, SOURCES, *architecture.image_size).softmax(1)
        expected = alone(move(images), move(labels))[1]
        torch.testing.assert_close(behind(images, labels)[1], expected, atol=1e-5, rtol=0)


def test_one_program_serves_all_batch_sizes() -> None:
    aligned = labeltrace.align(Moved(swapped, tokens=True), inputs(8)[0])
    code = aligned.label_code()
    assert "cut(y, 0, 0, batch // 2)" in code and "cut(prior, 0, 0, batch // 2)" in code
    check(aligned, lambda labels: with_prior(swapped(labels)), (4, 5, 7, 8, 11, 30))
    assert aligned.label_code() == code
    graphs = aligned._engines.graphs.graphs.values()
    assert [graph.capture.batch.dynamic for graph in graphs] == [True]


def test_a_program_serves_only_batches_that_torch_decided_alike() -> None:
    """Six images in splits of four are two splits, twelve are three."""
    aligned = labeltrace.align(Moved(lambda x: x.split(4)[1]), inputs(6)[0])
    batch = aligned.trace(inputs(6)[0]).capture.batch
    assert [size for size in range(2, 20) if batch.holds_for(size)] == [6, 7, 8]
    check(aligned, lambda labels: labels.split(4)[1], (5, 6, 7, 8, 12, 17))
    halves = labeltrace.align(Moved(lambda x: x.tensor_split(2)[0]), inputs(8)[0])
    batch = halves.trace(inputs(8)[0]).capture.batch
    assert [size for size in range(2, 12) if batch.holds_for(size)] == [4, 6, 8, 10]


def test_the_printed_program_runs_for_any_batch() -> None:
    aligned = labeltrace.align(Moved(later_half_twice, tokens=True), inputs(8)[0])
    scope: dict[str, Any] = {}
    exec("from labeltrace.label_ops import *\n" + aligned.label_code(), scope)
    for batch in (4, 5, 7):
        images, labels = inputs(batch)
        assert torch.equal(scope["label_graph"](labels), aligned(images, labels)[1])


def test_compiled_and_exported_programs_keep_the_batch_open() -> None:
    aligned = labeltrace.align(Moved(swapped, tokens=True), inputs(8)[0])
    batch = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(aligned, inputs(8), dynamic_shapes=(batch, batch), strict=False)
    compiled = torch.compile(aligned, backend="eager", dynamic=True)
    for size in (8, 7, 5, 11):
        images, labels = inputs(size)
        expected = with_prior(swapped(labels))
        for found in (compiled(images, labels)[1], program.module()(images, labels)[1]):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "join",
    [
        lambda x: torch.cat([x, torch.zeros(1, CHANNELS, ROWS, COLUMNS)]),
        lambda x: F.pad(x.flip(0), (0, 0, 0, 0, 0, 0, 1, 0)),
    ],
)
def test_rows_of_no_image_have_no_prior(join: Move) -> None:
    with pytest.raises(LayoutError, match="such a row belongs to no image, so it has no prior"):
        labeltrace.align(Moved(join), inputs(8)[0])
