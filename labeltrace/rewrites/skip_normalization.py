"""Where weights are the outcome of a softmax over what they mix, Norm leaves them as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import torch
from torch.fx import Node

from labeltrace.capture.node_info import overwritten_memory, schema_arguments, storage_of
from labeltrace.flow import LabelField, LabelStep, Mix, TensorSource
from labeltrace.rewrites.index_slice import Rows
from labeltrace.rewrites.steps import Steps
from labeltrace.tracing.walk import Recomputed

_SOFTMAX: Final = (torch.ops.aten.softmax.int, torch.ops.aten._softmax.default)


def skip_normalization(steps: Steps) -> Steps:
    """Mark the mixing steps whose weights' rows are distributions already."""
    overwritten: frozenset[int | None] | None = None
    left: dict[LabelField, LabelStep] = {}
    for field, step in steps.items():
        left[field] = step
        if not isinstance(step, Mix) or (node := _softmax(step.weights.tensor)) is None:
            continue
        if overwritten is None:
            overwritten = overwritten_memory(node.graph)
        if storage_of(node) not in overwritten and _mixes_what_sums_to_one(step, node):
            left[field] = replace(step, rows_sum_to_one=True)
    return left


def _softmax(source: TensorSource | None) -> Node | None:
    """The softmax whose outcome, or some of its rows, the weights are."""
    while isinstance(source, Rows):
        source = source.tensor
    node: Any = source.node if isinstance(source, Recomputed) else source
    while isinstance(node, Node) and _drops_nothing(node):
        node = node.args[0]
    return node if isinstance(node, Node) and node.target in _SOFTMAX else None


def _drops_nothing(node: Node) -> bool:
    if node.target is not torch.ops.aten.dropout.default:
        return False
    arguments = schema_arguments(node)
    return not arguments["train"] or arguments["p"] == 0


def _mixes_what_sums_to_one(step: Mix, softmax: Node) -> bool:
    dim: Any = schema_arguments(softmax)["dim"]
    equation = step.equation
    mixed_away = {name for name in equation.labels if name not in equation.result}
    inside = set(equation.weights[dim % len(equation.weights)])
    columns = set(equation.columns)
    return columns == mixed_away and columns <= inside and inside.isdisjoint(equation.result)
