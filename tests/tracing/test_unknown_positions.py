"""Values whose positions cannot be followed: no harm on scores, an error anywhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace
from labeltrace import LayoutError, UnknownOperatorError

TOKENS, WIDTH = 5, 3


class Relative(nn.Module):
    """Attention whose scores for each distance are shifted into the places of keys."""

    def __init__(self, scores: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.distances = nn.Parameter(torch.randn(WIDTH, 2 * TOKENS - 1))
        self.scores = scores

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(x).chunk(3, -1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.parts(x)
        return self.scores(q @ k.mT, shifted(q @ self.distances)).softmax(-1) @ v


def shifted(scores: Tensor) -> Tensor:
    """(B, N, 2 N - 1) by distance to (B, N, N) by key, as bottleneck transformers do it."""
    batch, tokens, apart = scores.shape
    flat = F.pad(F.pad(scores, (0, 1)).flatten(1), (0, tokens - 1))
    return flat.reshape(batch, tokens + 1, apart)[:, :tokens, tokens - 1 :]


def rolled(scores: Tensor) -> Tensor:
    """(B, N, N): every row moves by one more than the last, as Transformer-XL does it."""
    batch, tokens, keys = scores.shape
    return F.pad(scores, (1, 0)).reshape(batch, keys + 1, tokens)[:, 1:].reshape(scores.shape)


SUMS: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda scores, bias: scores * 0.5 + bias,
    lambda scores, bias: bias.relu() + scores,
    lambda scores, bias: (scores - (bias + 2 * bias.mT)) * 0.5,
    lambda scores, bias: torch.add(scores, bias, alpha=2.0),
    lambda scores, bias: (scores * 1.0).add_(bias),
    lambda scores, bias: (scores[:, None] + bias[:, None])[:, 0],
    lambda scores, bias: scores + rolled(scores),
]


@pytest.mark.parametrize("index", range(len(SUMS)))
def test_labels_move_by_the_scores_with_what_is_added(index: int) -> None:
    model, x = Relative(SUMS[index]).eval(), torch.randn(2, TOKENS, WIDTH)
    own = torch.eye(TOKENS).expand(2, -1, -1)
    outputs, found = labeltrace.align(model, channel_dim=-1)(x, own)
    q, k, v = model.parts(x)
    biases = torch.stack(
        [
            q[:, i] @ model.distances[:, torch.arange(TOKENS) - i + TOKENS - 1]
            for i in range(TOKENS)
        ],
        1,
    )
    weights = SUMS[index](q @ k.mT, biases).softmax(-1)
    assert torch.equal(outputs, model(x))
    torch.testing.assert_close(weights @ v, outputs)  # the shift is what the loop says
    torch.testing.assert_close(found, weights.detach(), atol=1e-6, rtol=0)


class Reads(nn.Module):
    """Does something with a stream, its scores, and an unplaced value of the scores' shape."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x, x @ x.mT, shifted(torch.cat([x, x, x], -1)))


READERS: dict[str, Callable[..., object]] = {
    "output": lambda x, scores, lost: {"lost": lost, "x": x},
    "residual": lambda x, scores, lost: x.mean(-1, keepdim=True) + lost,
    "values": lambda x, scores, lost: scores.softmax(-1) @ lost,
    "weights alone": lambda x, scores, lost: lost.softmax(-1) @ x,
    "gate": lambda x, scores, lost: (scores * lost).softmax(-1) @ x,
    "smaller scores": lambda x, scores, lost: (scores[:, :1] + lost).softmax(-1) @ x,
    "joined": lambda x, scores, lost: torch.cat([scores, lost], 1).softmax(-1) @ x,
    "written": lambda x, scores, lost: torch.zeros(2, 5, 5).copy_(lost) + 1,
    "keys by values": lambda x, scores, lost: x @ (x.mT @ x + lost[:, :3, :3]),
}


@pytest.mark.parametrize("name", READERS)
def test_anything_else_that_reads_it_is_an_error(name: str) -> None:
    x = torch.randn(2, TOKENS, WIDTH)
    with pytest.raises(LayoutError) as error:
        labeltrace.trace(Reads(READERS[name]), x, channel_dim=-1)
    text = str(error.value)
    assert "1 node that cannot be followed" in text
    assert "aten.pad" in text and "test_unknown_positions.py" in text, (
        "it names where the places were lost"
    )


def test_a_value_that_no_label_depends_on_may_be_unplaced() -> None:
    model = Reads(lambda x, scores, lost: (lost.sum(), x * 2)[1])
    trace = labeltrace.trace(model, torch.randn(2, TOKENS, WIDTH), channel_dim=-1)
    assert not any(node.layout is None and node.labeled for node in trace.nodes)


def test_an_unknown_operator_is_named_all_the_same() -> None:
    model = Reads(lambda x, scores, lost: scores + lost.cumsum(1) + lost)
    with pytest.raises(UnknownOperatorError, match=r"no rule for aten\.cumsum"):
        labeltrace.trace(model, torch.randn(2, TOKENS, WIDTH), channel_dim=-1)
