"""All rewrites of the label steps of a trace, in their order."""

from __future__ import annotations

from dataclasses import replace

from labeltrace.rewrites.fuse_relayouts import fuse_relayouts
from labeltrace.rewrites.joint_attention import mark_joint_attention
from labeltrace.rewrites.skip_normalization import skip_normalization
from labeltrace.rewrites.slice_pushdown import push_slices
from labeltrace.tracing.trace import Trace


def simplify_steps(trace: Trace) -> Trace:
    """The trace with label steps that compute the same labels of its outputs with less work."""
    separate = simplify_separate_steps(trace)
    return replace(separate, steps=mark_joint_attention(separate.steps, trace.calls))


def simplify_separate_steps(trace: Trace) -> Trace:
    """The same for label steps that run after the model and compute none of its outputs."""
    outputs = frozenset(value.field for value in trace.outputs if value and value.field)
    steps = fuse_relayouts(trace.steps)
    steps = fuse_relayouts(push_slices(steps, outputs))
    return replace(trace, steps=skip_normalization(steps, trace.calls))
