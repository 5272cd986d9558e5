"""The text of the label half is Python: executed on the forward pass's tensors, it gives the
labels of the module that it describes, bit for bit."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node

import labeltrace
from labeltrace.codegen.generate import Generated, generate
from labeltrace.flow import Flow
from labeltrace.rule_api.call import Call
from labeltrace.rule_helpers import custom_step
from labeltrace.tracing.trace import Trace
from tests.helpers.families import FAMILIES, example


class Recorder(Interpreter):
    """Runs a graph and keeps the value of every node by the node's name."""

    def __init__(self, made: Generated) -> None:
        super().__init__(made.module)
        self.values: dict[str, Any] = {}

    def run_node(self, n: Node) -> Any:
        self.values[n.name] = value = super().run_node(n)
        return value


def label_graph_of(text: str) -> Callable[..., Any]:
    """The function that the text defines."""
    namespace: dict[str, Any] = {}
    exec(f"from labeltrace.label_ops import *\n\n{text}", namespace)
    return namespace["label_graph"]


def check(trace: Trace, model: nn.Module, inputs: tuple[Tensor, Tensor], **functions: Any) -> str:
    """The text gives the module's labels; `functions` are the user's own, by parameter.

    Returns the text.
    """
    made = generate(trace)
    recorder = Recorder(made)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    state = [tensors[entry.name] for entry in trace.capture.state]
    with torch.no_grad():
        outputs = recorder.run(*state, *trace.capture.constants, *inputs)
    run = label_graph_of(made.label_code)
    values = recorder.values | functions
    # A node with the name of a label function has an underscore after it in the text.
    arguments = [
        values[name] if name in values else values[name.removesuffix("_")]
        for name in inspect.signature(run).parameters
    ]
    found = run(*arguments)
    found = found if isinstance(found, tuple) else (found,)
    for label, expected in zip(found, outputs[len(trace.outputs) :], strict=True):
        assert (label is expected is None) or torch.equal(label, expected)
    return made.label_code


@pytest.mark.parametrize("name", ["vit", "swin", "mlp_mixer"])
def test_the_text_of_a_family_gives_its_labels(name: str) -> None:
    (family,) = (family for family in FAMILIES if family.name == name)
    model = family.build().eval()
    images, labels = example(family)
    check(labeltrace.trace(model, images), model, (images, labels))


def inputs_of(*size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(3, 2, *size, generator=generator).softmax(1)
    return torch.randn(3, 2, *size, generator=generator), labels


class SelectedAttention(nn.Module):
    """Attention whose map goes through `select`, also the name of a label function."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        weights = (tokens @ tokens.mT).softmax(-1)
        return (weights[:, None].select(1, 0) @ tokens)[:, 7]


def test_a_node_with_the_name_of_a_label_function() -> None:
    model, inputs = SelectedAttention(), inputs_of(5, 5)
    text = check(labeltrace.trace(model, inputs[0]), model, inputs)
    assert text.splitlines()[0] == "def label_graph(labels, select_):"
    assert "rows = cut(select_, 1, 7, 8)" in text and "= select(" in text


class SeveralOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x.mean((2, 3)), self.scale * 2, x


def test_several_outputs_and_one_without_a_label() -> None:
    model, inputs = SeveralOutputs(), inputs_of(4, 6)
    text = check(labeltrace.trace(model, inputs[0]), model, inputs)
    assert re.fullmatch(r"    return y_\d+, None, y_\d+", text.splitlines()[-1])


def reverse_rows(labels: Tensor) -> Tensor:
    return labels.flip(1)


class Upside(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(2)


def test_a_function_of_the_users_own_is_a_parameter() -> None:
    def rule(call: Call) -> Flow:
        return custom_step(reverse_rows, call["input0"], call.output, channels=(1,))

    model, inputs = nn.Sequential(Upside(), Upside()), inputs_of(4, 6)
    aligned = labeltrace.align(model, rules={Upside: rule})
    trace = aligned.trace(inputs[0])
    text = check(trace, model, inputs, reverse_rows=reverse_rows)
    assert text.splitlines()[0] == "def label_graph(labels, reverse_rows):"
    assert text.count("= reverse_rows(") == 2


def test_many_parameters_are_wrapped() -> None:
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(9)))
    inputs = inputs_of(4, 6)
    text = check(labeltrace.trace(model, inputs[0]), model, inputs)
    first, *lines = text.splitlines()
    assert first == "def label_graph("
    assert lines[0].startswith("    labels, p_0_weight, p_1_weight, ")
    assert all(len(line) <= 100 for line in lines[: lines.index("):")])
