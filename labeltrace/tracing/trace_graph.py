"""Tracing a captured graph: read it into records, then apply the rules to them."""

from __future__ import annotations

from labeltrace.capture.captured import Capture
from labeltrace.capture.graph_records import read_graph
from labeltrace.rule_api.registry import Registry
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.walk import trace_calls


def trace_graph(capture: Capture, registry: Registry) -> Trace:
    """Apply the rules to every call of a captured graph.

    Raises:
        UnknownOperatorError: operators on the label's way have no rule; all of them are named.
        LayoutError: positions cannot be followed through some calls; all of them are named.
    """
    return trace_calls(read_graph(capture), registry, capture)
