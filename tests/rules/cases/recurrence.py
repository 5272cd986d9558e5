"""Recurrent layers: a layer at each step has read all steps before it, and all count alike."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.rules.cases.case import Refusal, RuleCase, Truth, values

STEPS, FEATURES, HIDDEN = 7, 3, 5
SHARED = {"shape": (2, STEPS, FEATURES), "channel_dim": 2, "approximate": True}


def layers_of(steps: int, layers: int, bidirectional: bool) -> list[Tensor]:
    """What each layer's steps mix, (steps, steps): the means of those read so far, in loops."""
    found: list[Tensor] = []
    below = torch.eye(steps, dtype=torch.float64)
    for _ in range(layers):
        own = torch.zeros(steps, steps, dtype=torch.float64)
        for step in range(steps):
            read = [below[: step + 1].mean(0)]
            if bidirectional:
                read.append(below[step:].mean(0))
            own[step] = torch.stack(read).mean(0)
        found.append(own)
        below = own
    return found


def remembered(layers: int, bidirectional: bool, states: int, batch_first: bool = True) -> Truth:
    """The labels of the output of every step and of each final state."""

    def truth(case: RuleCase) -> list[Tensor | None]:
        images, steps, _ = case.shape if batch_first else (case.shape[1], case.shape[0], 0)
        directions = 2 if bidirectional else 1
        outputs = torch.zeros(images, steps, HIDDEN * directions, images, steps)
        final = torch.zeros(layers * directions, images, HIDDEN, images, steps)
        mixing = layers_of(steps, layers, bidirectional)
        below = [torch.eye(steps, dtype=torch.float64), *mixing]
        for image in range(images):
            outputs[image, :, :, image] = mixing[-1][:, None]
            for index in range(layers * directions):
                final[index, image, :, image] = below[index // directions].mean(0)
        return [outputs.flatten(-2).double(), *[final.flatten(-2).double()] * states]

    return truth


def weights(gates: int, layers: int, bidirectional: bool) -> dict[str, Tensor]:
    """Parameters in the operator's order, ``p0``, ``p1`` ...: no biases."""
    found: dict[str, Tensor] = {}
    directions = 2 if bidirectional else 1
    for layer in range(layers):
        width = HIDDEN * directions if layer else FEATURES
        for direction in range(directions):
            for size in (width, HIDDEN):
                drawn = values(gates * HIDDEN, size, seed=10 * layer + direction) / 4
                found[f"p{len(found)}"] = drawn
    return found


def recurrent(kind: str, gates: int, layers: int, bidirectional: bool) -> RuleCase:
    parts = weights(gates, layers, bidirectional)
    listed = ", ".join(f"self.{name}" for name in parts)
    state = f"x.new_zeros({layers * (2 if bidirectional else 1)}, x.shape[0], {HIDDEN})"
    states = f"[{state}, {state}]" if kind == "lstm" else state
    code = (
        f"torch.{kind}(x, {states}, [{listed}], False, {layers}, 0.0, False, {bidirectional}, True)"
    )
    truth = remembered(layers, bidirectional, 2 if kind == "lstm" else 1)
    return RuleCase(f"aten.{kind}.input", code, truth, parts, **SHARED)


CASES = tuple(
    recurrent(kind, gates, layers, bidirectional)
    for kind, gates in (("lstm", 4), ("gru", 3), ("rnn_tanh", 1), ("rnn_relu", 1))
    for layers, bidirectional in ((1, False), (2, False), (2, True))
)

PLAIN = {f"p{index}": values(5, size) for index, size in enumerate((3, 5))}
CALL = "torch.rnn_tanh({}, {}, [self.p0, self.p1], False, 1, 0.0, False, False, {})[0]"

REFUSED = (
    Refusal(
        CALL.format("x", "x.mean(1)[None] @ self.p0.T", True),
        "its first state and parameters are constants",
        PLAIN,
        (2, 7, 3),
        2,
    ),
    Refusal(
        CALL.format("x", "x.new_zeros(1, 7, 5)", False),
        "runs along the batch, from image to image",
        PLAIN,
        (2, 7, 3),
        2,
    ),
    Refusal(
        CALL.format(
            "x.flatten(1).unflatten(1, (7, 3)).transpose(1, 2).flatten(1)[..., None]"
            ".expand(-1, -1, 3)",
            "x.new_zeros(1, x.shape[0], 5)",
            True,
        ),
        "are not positions",
        PLAIN,
        (2, 7, 3),
        2,
    ),
)
