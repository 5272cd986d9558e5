"""Recurrent layers: which steps each output and last state mixes, however they are laid out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import labeltrace
from labeltrace import CaptureError, LayoutError
from labeltrace.capture.fix_rnn_state_shapes import fix_rnn_state_shapes

BATCH, STEPS, WIDTH, HIDDEN = 2, 5, 3, 4
KINDS = [nn.LSTM, nn.GRU, nn.RNN, lambda *args, **kw: nn.RNN(*args, **kw, nonlinearity="relu")]


class Recurrent(nn.Module):
    """A recurrent layer over (B, steps, features), which it may want in another order."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first = self.layer.batch_first
        outputs, states = self.layer(x if first else x.transpose(0, 1))
        states = states if isinstance(states, tuple) else (states,)
        outputs = outputs if first else outputs.transpose(0, 1)
        return {"outputs": outputs, "h": states[0], "c": states[-1]}


def labels_of(model: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return labeltrace.align(model, channel_dim=-1)(x, labels)[1]


def identity(steps: int = STEPS) -> Tensor:
    return torch.eye(steps).expand(BATCH, -1, -1)


@pytest.mark.parametrize("kind", KINDS, ids=["lstm", "gru", "tanh", "relu"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_steps_are_averaged_as_they_are_read(
    kind: type[nn.RNNBase], first: bool, both: bool, layers: int
) -> None:
    layer = kind(WIDTH, HIDDEN, num_layers=layers, batch_first=first, bidirectional=both)
    aligned = labeltrace.align(Recurrent(layer), channel_dim=-1)
    x = torch.randn(BATCH, STEPS, WIDTH)
    found = aligned(x, identity())[1]
    one = torch.tensor([[1 / (t + 1) if s <= t else 0 for s in range(STEPS)] for t in range(STEPS)])
    if both:
        one = (one + one.flip(0, 1)) / 2
    directions = 1 + both
    expected, ends = torch.eye(STEPS), []
    for _ in range(layers):
        ends += [expected.mean(0)] * directions
        expected = one @ expected
    torch.testing.assert_close(found["outputs"], expected.expand(BATCH, -1, -1), atol=1e-6, rtol=0)
    for state in (found["h"], found["c"]):
        assert state.shape == (layers * directions, BATCH, STEPS)
        torch.testing.assert_close(
            state, torch.stack(ends)[:, None].expand_as(state), atol=1e-6, rtol=0
        )
    (node,) = aligned.trace(x).approximate
    assert "depends on the data" in node.approximation


class RowByRow(nn.Module):
    """Every row of an image of one channel is a step, its columns are the features."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layer = nn.LSTM(7, HIDDEN, layers, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        outputs, (states, _) = self.layer(x[:, 0])
        return outputs, states[-1]


@pytest.mark.parametrize("layers", [1, 2])
def test_positions_among_the_features_count_alike(layers: int) -> None:
    labels = torch.rand(BATCH, 3, STEPS, 7, generator=torch.Generator().manual_seed(0)).softmax(1)
    model = RowByRow(layers)
    outputs, last = labeltrace.align(model)(torch.randn(BATCH, 1, STEPS, 7), labels)[1]
    rows = labels.mean(3).mT
    for _ in range(layers):
        final = rows.mean(1)
        rows = rows.cumsum(1) / torch.arange(1, STEPS + 1)[:, None]
    torch.testing.assert_close(outputs, rows, atol=1e-6, rtol=0)
    torch.testing.assert_close(last, final, atol=1e-6, rtol=0)


def test_steps_that_are_channels_move_nothing() -> None:
    class OverChannels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(1, HIDDEN, bidirectional=True, batch_first=True)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            tokens = x.shape[1]
            outputs, states = self.layer(x.flatten(0, 1)[..., None])
            return outputs.unflatten(0, (-1, tokens)), states.unflatten(1, (-1, tokens))

    model, x = OverChannels(), torch.randn(BATCH, STEPS, WIDTH)
    labels = torch.rand(BATCH, 3, STEPS).softmax(1)
    outputs, states = labeltrace.align(model, channel_dim=-1)(x, labels)[1]
    assert torch.equal(outputs, labels.mT[:, :, None].expand(-1, -1, WIDTH, -1))
    assert torch.equal(states, labels.mT.expand(2, -1, -1, -1))
    assert not labeltrace.trace(model, x, channel_dim=-1).approximate


class FirstState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x.mean(1)[None])[0]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (FirstState(), "first state"),
        (nn.Sequential(nn.Identity(), nn.GRU(WIDTH, HIDDEN)), "batch_first"),
    ],
)
def test_what_cannot_be_said_is_an_error(model: nn.Module, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        labeltrace.trace(model, torch.randn(BATCH, STEPS, WIDTH), channel_dim=-1)


def recorded_as_by_torch_2_11(model: nn.Module) -> torch.fx.Graph:
    """The graph of a bidirectional LSTM, with the shapes of its states as torch 2.11 has them."""
    graph = torch.export.export(model, (torch.zeros(BATCH, STEPS, WIDTH),), strict=False).graph
    (node,) = [node for node in graph.nodes if node.target is torch.ops.aten.lstm.input]
    outputs, *states = node.meta["val"]
    node.meta["val"] = (outputs, *(state.unflatten(0, (-1, 2)) for state in states))
    for reader in node.users:
        reader.meta["val"] = node.meta["val"][reader.args[1]]
    return graph


def test_states_have_the_shape_that_they_start_with() -> None:
    layer = nn.LSTM(WIDTH, HIDDEN, num_layers=3, batch_first=True, bidirectional=True)
    graph = recorded_as_by_torch_2_11(Recurrent(layer))
    fix_rnn_state_shapes(graph)
    (node,) = [node for node in graph.nodes if node.target is torch.ops.aten.lstm.input]
    expected = ((BATCH, STEPS, 2 * HIDDEN), (6, BATCH, HIDDEN), (6, BATCH, HIDDEN))
    assert tuple(tuple(value.shape) for value in node.meta["val"]) == expected
    for reader in node.users:
        assert tuple(reader.meta["val"].shape) == expected[reader.args[1]]


def test_an_operator_on_a_state_of_a_wrongly_recorded_shape_is_an_error() -> None:
    class Last(Recurrent):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"last": super().forward(x)["h"].sum(0)}

    graph = recorded_as_by_torch_2_11(Last(nn.LSTM(WIDTH, HIDDEN, bidirectional=True)))
    message = r"records the last states of aten.lstm.input with the shape \(1, 2, .*use a newer"
    with pytest.raises(CaptureError, match=message):
        fix_rnn_state_shapes(graph)
