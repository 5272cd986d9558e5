"""Mark fused attention whose labels the model's own call computes together with its output."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch
from torch.fx import Graph, Node

from labeltrace.capture.checkpoint_tags import checkpoint_tag
from labeltrace.capture.node_info import schema_arguments
from labeltrace.flow import Attend, LabelStep
from labeltrace.rewrites.steps import Steps

_ATTENTION: Final = torch.ops.aten.scaled_dot_product_attention.default


def mark_joint_attention(steps: Steps, graph: Graph) -> Steps:
    """Mark the attention steps that read the same queries, keys and values as the model's call.

    Calls with masks or dropout stay separate. So do calls in a checkpointed region, which run a
    second time without labels.
    """
    calls = {node.name: node for node in graph.find_nodes(op="call_function", target=_ATTENTION)}
    return {
        field: replace(step, joint=True)
        if isinstance(step, Attend) and _reads_all(step, calls.get(field.node))
        else step
        for field, step in steps.items()
    }


def _reads_all(step: LabelStep, call: Node | None) -> bool:
    if call is None or checkpoint_tag(call) is not None:
        return False
    assert isinstance(step, Attend)
    arguments = schema_arguments(call)
    plain = (
        arguments["attn_mask"] is None
        and not arguments["dropout_p"]
        and not arguments["is_causal"]
        and not arguments["enable_gqa"]
    )
    return plain and all(
        operand.tensor is arguments[name]
        for name, operand in (("query", step.query), ("key", step.key), ("value", step.value))
    )
