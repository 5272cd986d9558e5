"""All rewrites of a trace's label steps, in their order."""

from __future__ import annotations

from dataclasses import replace

from labeltrace.rewrites.fuse_relayouts import fold_relayouts
from labeltrace.rewrites.joint_attention import attend_within
from labeltrace.rewrites.skip_normalization import leave_distributions
from labeltrace.rewrites.slice_pushdown import narrow
from labeltrace.tracing.walk import Trace


def lean(trace: Trace) -> Trace:
    """The trace with label steps that give the same labels of its outputs for less work."""
    outputs = frozenset(value.field for value in trace.outputs if value and value.field)
    steps = fold_relayouts(trace.steps)
    steps = fold_relayouts(narrow(steps, outputs))
    steps = attend_within(leave_distributions(steps), trace.capture.graph)
    return replace(trace, steps=steps)
