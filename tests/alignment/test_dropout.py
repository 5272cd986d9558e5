"""Labels move by mixing weights as they were before dropout (contract, point 4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace

HEADS, TOKENS, WIDTH = 2, 5, 3
BLEND = torch.tensor([[0.2, -0.7, 1.1], [0.9, 0.4, -0.3]])  # 2 heads to 3

Weights = Callable[[Tensor, bool], Tensor]


def drop(weights: Tensor, training: bool) -> Tensor:
    return F.dropout(weights, 0.5, training)


WEIGHTS: dict[str, Weights] = {
    "dropped": drop,
    "dropped and scaled": lambda p, training: drop(p, training) * 0.5,
    "dropped and blended": lambda p, training: torch.einsum(
        "bhqk,hg->bgqk", drop(p, training), BLEND
    ),
    "blended and dropped": lambda p, training: drop(
        torch.einsum("bhqk,hg->bgqk", p, BLEND), training
    ),
    "dropped twice": lambda p, training: drop(drop(p, training) * 0.5, training),
    "added to what is not dropped": lambda p, training: drop(p, training) + p,
}


Mixing = Callable[[Tensor, Tensor, bool], Tensor]
MIXINGS: dict[str, Mixing] = {
    "product": lambda p, v, training: p @ v,
    "sum": lambda p, v, training: (p[..., None] * v[:, :, None]).sum(3),
    "dropped sum": lambda p, v, training: drop(p[..., None] * v[:, :, None], training).sum(3),
}


class Attention(nn.Module):
    def __init__(self, weights: Weights, mixing: Mixing = MIXINGS["product"]) -> None:
        super().__init__()
        self.weights = weights
        self.mixing = mixing

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.stack([x @ x.mT, -x @ x.mT / 2], 1)
        weights = self.weights(scores.softmax(-1), self.training)
        return self.mixing(weights, x[:, None], self.training).mean(1)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("name", WEIGHTS)
def test_labels_do_not_see_dropout(name: str, mixing: str) -> None:
    model = Attention(WEIGHTS[name], MIXINGS[mixing])
    aligned = labeltrace.align(model, channel_dim=-1)
    x, own = torch.randn(7, TOKENS, WIDTH), torch.eye(TOKENS).expand(7, -1, -1)
    dropped, labels = aligned.train()(x, own)
    plain, expected = aligned.eval()(x, own)
    assert not torch.allclose(dropped, plain)
    torch.testing.assert_close(labels, expected, atol=1e-6, rtol=0)
    assert not aligned.trace(x).approximate


def test_dropout_in_place_is_said_to_be_approximate() -> None:
    model = Attention(lambda p, training: F.dropout(p, 0.5, training, inplace=True))
    (node,) = labeltrace.trace(
        model.train(), torch.randn(7, TOKENS, WIDTH), channel_dim=-1
    ).approximate
    assert node.approximation == "dropout in place: the probabilities before it are gone"
