"""What labels need at least: floating-point operations of label graphs and of training steps.

Counted on the `meta` device, so nothing is computed.  As `torch.utils.flop_counter` does, these are
the operations of matrix products and convolutions; element-wise arithmetic is left out.  Fused
attention counts as the scores and the product with the labels, once for all heads; where the
model's own call computes the labels too, as the product of each head's probabilities with them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from dense_labels import DenseLabels
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter
from torch.utils.flop_counter import FlopCounterMode
from training_step import NUM_CLASSES, Case, build

import labeltrace
from labeltrace import label_ops


@dataclass(frozen=True)
class Arithmetic:
    """Operations of a training step, and of labels beside it; the first grid's tokens."""

    step: int
    labels: int
    tokens: int


def step_operations(model: nn.Module, images: Tensor) -> int:
    """Three times the forward pass: backward has two products for each of forward's.

    (The counter's own figure for backward is too large where convolutions have groups.)
    """
    with FlopCounterMode(display=False) as counter:
        model(images)
    return 3 * int(counter.get_total_flops())


class LabelOperations(Interpreter):
    """Runs a generated module and counts what its label steps compute."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.count = 0
        self.tokens = 0

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one node; count it if it is a label step."""
        if not getattr(target, "__module__", "").startswith(("labeltrace", "dense_labels")):
            return super().call_function(target, args, kwargs)
        function = inspect.unwrap(target)  # the meta device has no autocast to be kept out of
        if target is label_ops.attend:
            self.count += _attention(*args[:3])
            return function(*args, **kwargs)
        if target is label_ops.attention_with_labels:
            return self._attend_within(*args, **kwargs)
        with FlopCounterMode(display=False) as counter:
            result = function(*args, **kwargs)
        self.count += int(counter.get_total_flops())
        if target is label_ops.pool and not self.tokens:
            self.tokens = math.prod(result.shape[1:-1])
        return result

    def _attend_within(
        self, labels: Tensor, query: Tensor, key: Tensor, value: Tensor, notation: str, **given: Any
    ) -> tuple[Tensor, Tensor]:
        self.count += 2 * math.prod(query.shape[:-1]) * key.shape[-2] * labels.shape[-1]
        output = nn.functional.scaled_dot_product_attention(
            query, key, value, scale=given.get("scale")
        )
        return output, inspect.unwrap(label_ops.attend)(labels, query, key, notation, **given)


def _attention(labels: Tensor, query: Tensor, key: Tensor) -> int:
    """Scores of every head, and their mean times the labels."""
    queries, keys = query.shape[-2], key.shape[-2]
    images = math.prod(labels.shape[:-1]) // keys
    scores = 2 * math.prod(query.shape[:-1]) * keys * query.shape[-1]
    return scores + 2 * images * queries * keys * labels.shape[-1]


def label_operations(module: GraphModule, *given: Any) -> tuple[int, int]:
    """Operations of the label half and the tokens of its first grid."""
    counting = LabelOperations(module)
    with torch.no_grad():
        counting.run(*given)
    return counting.count, counting.tokens


def operations_of(case: Case, methods: Sequence[str]) -> dict[str, Arithmetic]:
    """Operations of each method with labels, on the meta device."""
    images = torch.empty(case.batch, 3, case.resolution, case.resolution, device="meta")
    labels = torch.empty(case.batch, 2, case.resolution, case.resolution, device="meta")
    classes = torch.empty(case.batch, 2, NUM_CLASSES, device="meta")
    step = step_operations(build(case, "meta").train(), images)
    found: dict[str, Arithmetic] = {}
    for method in methods:
        model = build(case, "meta").train()
        if method == "aligned":
            graphs = labeltrace.align(model)._graphs
            graph = graphs.graph((images,), {})
            state = [_entry(model, entry.name) for entry in graph.capture.state]
            given = (*state, *graph.capture.constants, images, labels)
            count, tokens = label_operations(graph.generated.module, *given)
        elif method == "paper":
            dense = DenseLabels(model, images)
            state = [_entry(model, ".".join(names)) for names in dense.state]
            given = (*state, *dense.constants, images, labels, classes)
            count, tokens = label_operations(dense.labelled, *given)
        else:
            continue
        found[method] = Arithmetic(step, count, tokens)
    return found


def _entry(model: nn.Module, name: str) -> Tensor:
    owner, _, last = name.rpartition(".")
    return getattr(model.get_submodule(owner), last)
