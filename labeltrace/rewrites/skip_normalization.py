"""Skip the normalization of weights that are the output of a softmax over what they mix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import torch
from torch.fx import Node

from labeltrace.capture.node_info import overwritten_memory, schema_arguments, storage_of
from labeltrace.flow import LabelField, LabelStep, Mix, TensorSource
from labeltrace.rewrites.index_slice import Rows
from labeltrace.rewrites.notation import read_mixing
from labeltrace.rewrites.steps import Steps
from labeltrace.tracing.walk import Recomputed

_SOFTMAX: Final = (torch.ops.aten.softmax.int, torch.ops.aten._softmax.default)


def skip_normalization(steps: Steps) -> Steps:
    """Mark the mixing steps whose weights have rows that sum to one already."""
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
    """The softmax whose output, or some rows of it, the weights are; None if there is none."""
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
    weights, labels, result = read_mixing(step.notation)
    dim: Any = schema_arguments(softmax)["dim"]
    columns = {name for name in labels if name not in result}
    inside = set(weights[dim % len(weights)])
    mixed = {name for axis in weights for name in axis if name in columns}
    return mixed == columns and columns <= inside and inside.isdisjoint(result)
