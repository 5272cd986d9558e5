"""Products whose class is easily mistaken: across the batch, of one query, of one channel."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace

TOKENS, WIDTH = 5, 3


class Layer(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def across_batch(x: Tensor) -> Tensor:
    """Attention between whole images, where (B, N) stands for (B, N, 1)."""
    one = x[..., 0]
    return (one @ one.mT).softmax(-1) @ one


def test_mixing_from_image_to_image_is_said_to_be_approximate() -> None:
    model, x = Layer(across_batch), torch.randn(3, TOKENS, WIDTH)
    labels = torch.rand(3, 2, TOKENS).softmax(1)
    (node,) = labeltrace.trace(model, x, channel_dim=-1).approximate
    assert "images of a batch are mixed" in node.approximation
    aligned = labeltrace.align(model, channel_dim=-1)
    weights = (x[..., 0] @ x[..., 0].mT).softmax(-1)
    expected = torch.einsum("ab,bkn->ank", weights, labels)
    torch.testing.assert_close(aligned(x, labels)[1], expected, atol=1e-6, rtol=0)
    alone = aligned(x[:1], labels[:1])[1]
    torch.testing.assert_close(alone, labels[:1].mT, atol=1e-6, rtol=0)


def class_attention(x: Tensor) -> Tensor:
    """The first token reads all of them, twice over."""
    for _ in range(2):
        first = (x[:, :1] @ x.mT).softmax(-1) @ x
        x = torch.cat([first, x[:, 1:]], 1)
    return x[:, 0]


def test_one_query_is_no_feature_of_keys() -> None:
    x, own = torch.randn(2, TOKENS, WIDTH), torch.eye(TOKENS).expand(2, -1, -1)
    model = Layer(class_attention)
    assert not labeltrace.trace(model, x, channel_dim=-1).approximate
    found, content, values = labeltrace.align(model, channel_dim=-1)(x, own)[1], own, x
    for _ in range(2):
        weights = (values[:, :1] @ values.mT).softmax(-1)
        content = torch.cat([weights @ content, content[:, 1:]], 1)
        values = torch.cat([weights @ values, values[:, 1:]], 1)
    torch.testing.assert_close(found, content[:, 0], atol=1e-6, rtol=0)


def test_a_mixed_stream_of_one_channel_keeps_it() -> None:
    layer = nn.Linear(TOKENS, 7)
    x, own = torch.randn(2, TOKENS, 1), torch.eye(TOKENS).expand(2, -1, -1)
    norm = layer.weight.detach().abs() / layer.weight.detach().abs().sum(1, keepdim=True)
    spellings = {
        "product": lambda x: layer.weight @ x,
        "attention": lambda x: F.scaled_dot_product_attention(x * 0, x, x),
    }
    for name, function in spellings.items():
        expected = norm if name == "product" else torch.full((TOKENS, TOKENS), 1 / TOKENS)
        found = labeltrace.align(Layer(function), channel_dim=-1)(x, own)[1]
        assert found.shape == (2, *expected.shape), name
        torch.testing.assert_close(found[1], expected, atol=1e-6, rtol=0)
