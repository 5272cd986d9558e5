"""Label programs: only the label part of a trace, run on a model's live parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from labeltrace.capture.captured import Capture, live_state
from labeltrace.codegen.generate import generate
from labeltrace.codegen.restore_modes import modes_kept
from labeltrace.tracing.trace import Trace


class LabelProgram:
    """Computes the labels of a trace's outputs, and of the forward pass only what labels depend on.

    Attributes:
        trace: the trace.
    """

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        self.trace = trace
        self._model = model
        self._module = _label_graph(trace)

    def __call__(self, inputs: Sequence[Any], labels: Tensor) -> tuple[Tensor, ...]:
        """The labels (B, N, K) of each output, given the model's input leaves and a label image."""
        with no_gradient(self.trace.capture, labels.device):
            state = live_state(self._model, self.trace.capture)
            results: tuple[Tensor, ...] = self._module(*state, *inputs, labels)
        return results


@contextmanager
def no_gradient(capture: Capture, device: torch.device) -> Iterator[None]:
    """Disable gradients, and restore the modes that a captured graph switches."""
    kept = modes_kept(device.type) if capture.switches_modes else nullcontext()
    with torch.no_grad(), kept:
        yield


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode; afterwards restore the mode of every submodule."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train(modes[0][1])  # an aligned module passes its mode on to the model
        for module, training in modes:
            module.training = training


def _label_graph(trace: Trace) -> GraphModule:
    module = generate(trace).module
    (output,) = module.graph.find_nodes(op="output")
    labels: Any = output.args[0]
    output.args = (tuple(labels[len(labels) - len(trace.outputs) :]),)
    module.graph.eliminate_dead_code(_has_effect)
    module.recompile()
    return module


def _has_effect(node: Node) -> bool:
    """Whether an unused node must be kept. Random draws need not be, because of eval mode."""
    if isinstance(node.target, OpOverload):
        return bool(node.target._schema.is_mutable)
    return node.is_impure()
