"""Products of streams that end as content have the label of what was contracted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace

BATCH, CHANNELS, ROWS, COLUMNS, SOURCES = 2, 3, 5, 7, 4
CELLS = ROWS * COLUMNS


class Layers(nn.Module):
    """A function of the images, beside layers that it may call."""

    def __init__(self, function: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.classifier = nn.Linear(CHANNELS**2, 11)
        self.triangle_classifier = nn.Linear(6, 11)
        self.token_classifier = nn.Linear(CELLS**2, 11)
        self.means = nn.Linear(CHANNELS, 11)
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.query, self.key = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.register_buffer("triangle", torch.triu_indices(CHANNELS, CHANNELS))

    def forward(self, images: Tensor) -> Any:
        return self.function(self, images)


def images() -> Tensor:
    return torch.rand(BATCH, CHANNELS, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))


def label_image() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(BATCH, SOURCES, ROWS, COLUMNS, generator=generator).softmax(1)


def labels_of(function: Callable[[Any, Tensor], Any]) -> Any:
    model = Layers(function)
    outputs, labels = labeltrace.align(model)(images(), label_image())
    torch.testing.assert_close(outputs, model(images()), rtol=0, atol=0)
    return labels


def flat(x: Tensor) -> Tensor:
    return x.flatten(2)


def gram(x: Tensor) -> Tensor:
    return flat(x) @ flat(x).mT


def centered(x: Tensor) -> Tensor:
    return flat(x) - flat(x).mean(2, keepdim=True)


def signed_root(x: Tensor) -> Tensor:
    return F.normalize((x.sign() * x.abs().sqrt()).flatten(1))


POOLED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "mean of outer products": lambda self, x: self.classifier(
        (flat(x)[:, None] * flat(x)[:, :, None]).mean(-1).flatten(1)
    ),
    "gram": lambda self, x: self.classifier(gram(x).flatten(1)),
    "einsum": lambda self, x: self.classifier(torch.einsum("bchw,bdhw->bcd", x, x).flatten(1)),
    "normalized": lambda self, x: self.classifier(signed_root(gram(x) / CELLS)),
    "covariance": lambda self, x: self.classifier((centered(x) @ centered(x).mT).flatten(1)),
    "with a ridge": lambda self, x: self.classifier((gram(x) + torch.eye(CHANNELS)).flatten(1)),
    "triangle": lambda self, x: self.triangle_classifier(
        gram(x)[:, self.triangle[0], self.triangle[1]]
    ),
    "in place": lambda self, x: self.classifier(gram(x).div_(CELLS).flatten(1)),
    "powers": lambda self, x: self.classifier((gram(x) @ gram(x)).flatten(1)),
    "beside means": lambda self, x: torch.cat([gram(x).flatten(1), x.mean((2, 3))], 1),
    "added to means": lambda self, x: (
        self.classifier(gram(x).flatten(1)) + self.means(x.mean((2, 3)))
    ),
}


@pytest.mark.parametrize("name", POOLED)
def test_second_order_pooling_has_the_mean_label(name: str) -> None:
    labels = labels_of(POOLED[name])
    torch.testing.assert_close(labels, label_image().mean((2, 3)))


def test_bilinear_pooling_averages_both_streams() -> None:
    """As the mean of outer products does, which is written out position by position."""
    written_out = labels_of(
        lambda self, x: self.classifier(
            (flat(x)[:, :, None] * flat(self.conv(x))[:, None]).mean(-1).flatten(1)
        )
    )
    labels = labels_of(
        lambda self, x: self.classifier((flat(x) @ flat(self.conv(x)).mT).flatten(1))
    )
    torch.testing.assert_close(labels, written_out)
    assert not torch.allclose(labels, label_image().mean((2, 3)))


def pairs() -> Tensor:
    """The mean label of each pair of cells: (B, cells, cells, K)."""
    cells = label_image().flatten(2).mT
    return (cells[:, :, None] + cells[:, None]) / 2


@pytest.mark.parametrize("softmax", [False, True])
def test_a_similarity_belongs_to_both_tokens(softmax: bool) -> None:
    def similarity(x: Tensor) -> Tensor:
        scores = flat(x).mT @ flat(x)
        return scores.softmax(-1) if softmax else scores

    torch.testing.assert_close(labels_of(lambda self, x: similarity(x)), pairs())
    model = Layers(lambda self, x: self.token_classifier(similarity(x).flatten(1)))
    labels = labeltrace.align(model)(images(), label_image())[1]
    shares = model.token_classifier.weight.abs() / model.token_classifier.weight.abs().sum(1, True)
    torch.testing.assert_close(labels, shares @ pairs().flatten(1, 2))


def attention(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    tokens = flat(x).mT
    weights = (self.query(tokens) @ self.key(tokens).mT).softmax(-1)
    return self.means((weights @ tokens).mean(1)), weights


def test_a_returned_attention_map_has_a_label_and_still_moves_labels() -> None:
    logits, weights = labels_of(attention)
    torch.testing.assert_close(logits, labels_of(lambda self, x: attention(self, x)[0]))
    torch.testing.assert_close(weights, pairs())
    trace = labeltrace.trace(Layers(attention), images())
    assert [node.labeled for node in trace.nodes if node.operator == "aten.softmax"] == [False]


def test_the_trace_shows_content_where_nobody_mixes_with_it() -> None:
    trace = labeltrace.trace(Layers(POOLED["gram"]), images())
    found = {node.operator: str(node.operation) for node in trace.nodes}
    assert found["aten.matmul"] == "spatial aggregation"
    assert found["aten.linear"] == "channel mixing"


def test_a_spatial_softmax_keeps_the_label_of_its_values() -> None:
    labels = labels_of(lambda self, x: flat(x).softmax(-1))
    torch.testing.assert_close(labels, label_image().flatten(2))


def test_an_index_is_no_content() -> None:
    assert labels_of(lambda self, x: x.argmax(1)) is None


def test_features_that_queries_choose_from_are_no_content() -> None:
    """Linear attention with a layer between its products is no second-order pooling."""

    def attend(self: Any, x: Tensor) -> Tensor:
        tokens = flat(x).mT.relu()
        return tokens @ self.key(tokens.mT @ tokens)

    with pytest.raises(labeltrace.LayoutError, match="queries that come from the image would mix"):
        labels_of(attend)


def test_values_that_similarities_weigh_are_no_content() -> None:
    """With a step between the product and the sum nobody knows which positions are mixed."""

    def weigh(self: Any, x: Tensor) -> Tensor:
        tokens = flat(x).mT
        weighed = (tokens @ tokens.mT)[..., None] * tokens[:, None]
        return weighed.movedim(2, 3).sum(3)

    with pytest.raises(labeltrace.LayoutError, match="summed over positions after another step"):
        labels_of(weigh)
