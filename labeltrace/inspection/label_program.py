"""Label programs: the label half of a trace alone, run on a model's live parameters."""

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
    """The labels of a trace's outputs; of the forward pass only what they read is run.

    Attributes:
        trace: what is run.
    """

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        self.trace = trace
        self._model = model
        self._module = _label_half(trace)

    def __call__(self, inputs: Sequence[Any], labels: Tensor) -> tuple[Tensor, ...]:
        """The labels of each output, for the leaves of the model's inputs and a label image."""
        with without_gradient(self.trace.capture, labels.device):
            state = live_state(self._model, self.trace.capture)
            results: tuple[Tensor, ...] = self._module(*state, *inputs, labels)
        return results


@contextmanager
def without_gradient(capture: Capture, device: torch.device) -> Iterator[None]:
    """No gradient, and the modes that a captured graph switches put back."""
    kept = modes_kept(device.type) if capture.switches_modes else nullcontext()
    with torch.no_grad(), kept:
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in eval mode; every submodule's own mode is put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train(modes[0][1])  # an aligned module hands its mode on to the model
        for module, training in modes:
            module.training = training


def _label_half(trace: Trace) -> GraphModule:
    module = generate(trace).module
    (output,) = module.graph.find_nodes(op="output")
    labels: Any = output.args[0]
    output.args = (tuple(labels[len(labels) - len(trace.outputs) :]),)
    module.graph.eliminate_dead_code(_has_effect)
    module.recompile()
    return module


def _has_effect(node: Node) -> bool:
    """Whether a node counts though nobody reads it; random draws do not, here in eval mode."""
    if isinstance(node.target, OpOverload):
        return bool(node.target._schema.is_mutable)
    return node.is_impure()
