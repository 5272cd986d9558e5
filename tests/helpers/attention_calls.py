"""Inputs of attention calls, and checks of an output with labels against the plain call."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

NOTATION = "b h q k, b k -> b q"


ON_X86 = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="needs MKL's products")


Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def inputs_of(
    queries: int = 37,
    keys: int = 37,
    size: int = 32,
    sources: int = 2,
    order: Any = None,
    samples: int = 5,
) -> Inputs:
    """Labels, queries, keys and values of 3 heads, whose dimensions lie in ``order`` in memory."""
    generator = torch.Generator().manual_seed(queries + size)
    order = order or (0, 2, 1, 3)  # as those of a model do

    def random(tokens: int) -> Tensor:
        shape = (samples, 3, tokens, size)
        stored = torch.randn([shape[dim] for dim in order], generator=generator)
        return stored.permute([order.index(dim) for dim in range(4)]).requires_grad_()

    labels = torch.rand(samples, keys, sources, generator=generator).softmax(-1)
    return labels, random(queries), random(keys), random(keys)


def dense(labels: Tensor, query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
    scores = query.double() @ key.double().mT * (scale or 1 / math.sqrt(query.shape[-1]))
    maps = scores.softmax(-1).nan_to_num(nan=1 / key.shape[-2])
    return (maps.mean(1) @ labels.double()).float()


def compare(inputs: Inputs, found: tuple[Tensor, Tensor], scale: float | None) -> None:
    """The output is the plain call's bit for bit, with its gradients; labels are the formula's."""
    (labels, query, key, value), (output, mixed) = inputs, found
    plain = F.scaled_dot_product_attention(query, key, value, scale=scale)
    assert output.stride() == plain.stride() and output.requires_grad == plain.requires_grad
    torch.testing.assert_close(output, plain, atol=0, rtol=0, equal_nan=True)
    expected = dense(labels, query, key, scale)
    torch.testing.assert_close(mixed, expected.detach(), atol=2e-6, rtol=0)
    assert not mixed.requires_grad and mixed.dtype == torch.float32
    if plain.requires_grad:
        of_output = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        gradients, right = (
            torch.autograd.grad(one, inputs[1:], of_output.to(one.dtype)) for one in (output, plain)
        )
        for one, other in zip(gradients, right, strict=True):
            torch.testing.assert_close(one, other, atol=0, rtol=0, equal_nan=True)
