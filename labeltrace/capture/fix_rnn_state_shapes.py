"""Correct shapes for the last states of recurrent layers.

Export in torch 2.11 records the last states of a bidirectional LSTM as (layers, directions, N, H).
The operator returns (layers * directions, N, H), the shape of its initial states.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, Node

from labeltrace.errors import CaptureError

_RECURRENT = (
    torch.ops.aten.lstm.input,
    torch.ops.aten.gru.input,
    torch.ops.aten.rnn_tanh.input,
    torch.ops.aten.rnn_relu.input,
)


def fix_rnn_state_shapes(graph: Graph) -> None:
    """Replace the recorded shape of each last state by that of its initial state, in place.

    Raises:
        CaptureError: an operator reads a state whose recorded shape is wrong, so that its own
            recorded shape is wrong too.
    """
    for node in graph.nodes:
        if node.target in _RECURRENT:
            _fix_shapes(node)


def _fix_shapes(node: Node) -> None:
    first = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    true = [state.meta["val"] for state in first if isinstance(state, Node)]
    outputs, *recorded = node.meta["val"]
    for state, right in zip(recorded, true, strict=True):
        if state.dim() != right.dim() and _is_read_by_operators(node):
            raise CaptureError(_message(node, tuple(state.shape), tuple(right.shape)))
    node.meta["val"] = (outputs, *true)
    for reader in node.users:
        (_, index) = reader.args
        reader.meta["val"] = node.meta["val"][index]


def _is_read_by_operators(node: Node) -> bool:
    """Whether an operator reads a state of a recurrent layer; an output only returns it."""
    states = [reader for reader in node.users if reader.args[1] != 0]
    return any(other.op != "output" for state in states for other in state.users)


def _message(node: Node, recorded: Any, right: Any) -> str:
    return (
        f"torch {torch.__version__} records the last states of {node.target} with the shape "
        f"{recorded} where it returns {right}, and the model reads them, so that what follows is "
        "recorded wrongly as well; use a newer torch (2.14 records them rightly)"
    )
