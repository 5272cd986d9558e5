"""Mark fused attention whose labels the model's own call computes together with its output."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from labeltrace.capture.call_records import CallRecord, ModelCalls
from labeltrace.flow import Attend
from labeltrace.rewrites.steps import Steps

_ATTENTION: Final = "aten.scaled_dot_product_attention.default"


def mark_joint_attention(steps: Steps, calls: ModelCalls) -> Steps:
    """Mark the attention steps that read the same queries, keys and values as the model's call.

    Calls with masks or dropout stay separate. So do calls in a checkpointed region, which run a
    second time without labels.
    """
    return {
        field: replace(step, joint=True)
        if isinstance(step, Attend) and _reads_all(step, calls[field.node])
        else step
        for field, step in steps.items()
    }


def _reads_all(step: Attend, call: CallRecord) -> bool:
    if call.operator_names[0] != _ATTENTION or call.checkpoint is not None:
        return False
    arguments = call.arguments
    plain = (
        arguments["attn_mask"] is None
        and not arguments["dropout_p"]
        and not arguments["is_causal"]
        and not arguments["enable_gqa"]
    )
    return plain and all(
        operand.tensor == arguments[name]
        for name, operand in (("query", step.query), ("key", step.key), ("value", step.value))
    )
