"""The minimal cost of labels: floating-point operations of label graphs and of training steps.

They are counted on the `meta` device, so nothing is computed. Like `torch.utils.flop_counter`, this
counts matrix products and convolutions, and no element-wise arithmetic. Fused attention counts as
the scores and one product with the labels for all heads; if the model's own call also computes the
labels, as the product of each head's probabilities with them.
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
    """Operations of a training step and of its labels; number of tokens in the first grid."""

    step: int
    labels: int
    tokens: int


def step_operations(model: nn.Module, images: Tensor) -> int:
    """Three times the operations of the forward pass: backward has two products for each of them.

    (The counter's own number for backward is too large for grouped convolutions.)
    """
    with FlopCounterMode(display=False) as counter:
        model(images)
    return 3 * int(counter.get_total_flops())


class LabelOperations(Interpreter):
    """Runs a generated module and counts the operations of its label steps."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.count = 0
        self.tokens = 0

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one node; count it if it is a label step."""
        if not getattr(target, "__module__", "").startswith(("labeltrace", "dense_labels")):
            return super().call_function(target, args, kwargs)
        function = inspect.unwrap(target)  # the meta device has no autocast to disable
        if target is label_ops.attend:
            self.count += _attention_operations(*args[:3])
            return function(*args, **kwargs)
        if target is label_ops.attention_with_labels:
            return self._attention_with_labels(*args, **kwargs)
        with FlopCounterMode(display=False) as counter:
            result = function(*args, **kwargs)
        self.count += int(counter.get_total_flops())
        if target is label_ops.pool and not self.tokens:
            self.tokens = math.prod(result.shape[1:-1])
        return result

    def _attention_with_labels(
        self, labels: Tensor, query: Tensor, key: Tensor, value: Tensor, notation: str, **given: Any
    ) -> tuple[Tensor, Tensor]:
        self.count += 2 * math.prod(query.shape[:-1]) * key.shape[-2] * labels.shape[-1]
        output = nn.functional.scaled_dot_product_attention(
            query, key, value, scale=given.get("scale")
        )
        return output, inspect.unwrap(label_ops.attend)(labels, query, key, notation, **given)


def _attention_operations(labels: Tensor, query: Tensor, key: Tensor) -> int:
    """The operations of every head's scores, and of their mean times the labels."""
    queries, keys = query.shape[-2], key.shape[-2]
    images = math.prod(labels.shape[:-1]) // keys
    scores = 2 * math.prod(query.shape[:-1]) * keys * query.shape[-1]
    return scores + 2 * images * queries * keys * labels.shape[-1]


def label_operations(module: GraphModule, *given: Any) -> tuple[int, int]:
    """Operations of the labels, and the number of tokens of the first grid."""
    counter = LabelOperations(module)
    with torch.no_grad():
        counter.run(*given)
    return counter.count, counter.tokens


def count_operations(case: Case, methods: Sequence[str]) -> dict[str, Arithmetic]:
    """Operations of each method with labels, on the meta device."""
    images = torch.empty(case.batch, 3, case.resolution, case.resolution, device="meta")
    labels = torch.empty(case.batch, 2, case.resolution, case.resolution, device="meta")
    classes = torch.empty(case.batch, 2, NUM_CLASSES, device="meta")
    step = step_operations(build(case, "meta").train(), images)
    found: dict[str, Arithmetic] = {}
    for method in methods:
        model = build(case, "meta").train()
        if method == "aligned":
            graphs = labeltrace.align(model)._engines.graphs
            graph = graphs.graph((images,), {})
            state = [_state_tensor(model, entry.name) for entry in graph.capture.state]
            given = (*state, *graph.capture.constants, images, labels)
            count, tokens = label_operations(graph.generated.module, *given)
        elif method == "paper":
            dense = DenseLabels(model, images)
            state = [_state_tensor(model, ".".join(names)) for names in dense.state]
            given = (*state, *dense.constants, images, labels, classes)
            count, tokens = label_operations(dense.labeled, *given)
        else:
            continue
        found[method] = Arithmetic(step, count, tokens)
    return found


def _state_tensor(model: nn.Module, name: str) -> Tensor:
    owner, _, last = name.rpartition(".")
    return getattr(model.get_submodule(owner), last)
