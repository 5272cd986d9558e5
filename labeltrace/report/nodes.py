"""The nodes of a report: each node of the label flow with its description."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import PurePath

import torch.fx

from labeltrace.capture.call_records import CallKind
from labeltrace.flow import LabelField, Operation
from labeltrace.inspection.places import Place
from labeltrace.layout import Layout
from labeltrace.report.descriptions import INPUT, SAME, describe_step
from labeltrace.report.module_tree import ModuleTree
from labeltrace.report.schema import Node
from labeltrace.rule_api.call import Rule
from labeltrace.rule_api.registry import current
from labeltrace.tracing.regions import find_regions
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.traced_node import TracedNode

MAX_CALL_LENGTH = 160  # characters
PATH_PARTS_SHOWN = 3  # last parts of a file's path: enough to find the file


def flow_nodes(trace: Trace) -> tuple[TracedNode, ...]:
    """All nodes except constants."""
    return tuple(node for node in trace.nodes if node.operation is not Operation.CONSTANT)


def node_indices(trace: Trace) -> dict[str, int]:
    """The index of each node in a report; the image is the first."""
    names = [trace.capture.traced_input, *(node.name for node in flow_nodes(trace))]
    return {name: index for index, name in enumerate(names)}


def describe_nodes(
    trace: Trace,
    tree: ModuleTree,
    places: Mapping[str, Place],
    maps: Mapping[LabelField, int],
    reaches: Mapping[LabelField, int],
) -> Iterator[Node]:
    """The nodes, with indices into the modules, label maps and receptive fields of a report."""
    index = node_indices(trace)
    graph = {node.name: node for node in trace.capture.graph.nodes}
    rules = _rule_names(trace)
    yield Node(
        name=trace.capture.traced_input,
        operator="input",
        operation="input",
        about=INPUT,
        layout=str(trace.input_layout),
        map=maps[trace.input_field],
    )
    for node in flow_nodes(trace):
        place = places.get(node.name)
        fields = trace.fields_of(node.name)
        yield Node(
            name=node.name,
            operator=node.operator,
            operation=str(node.operation),
            about=_describe_step(trace, node),
            call=_call_text(graph[node.name]),
            module=tree.innermost(node.module_path),
            path=node.module_path,
            kind=node.location.module_type,
            source=_shorten_source_line(node.source_line),
            rule=rules[node.name],
            layout=_layout_text(node.layout),
            approximation=node.approximation,
            inputs=tuple(index[name] for name in node.inputs if name in index),
            map=None if place is None else maps[place.field],
            why=_reason_for_no_map(node) if place is None else "",
            reach=next((reaches[field] for field in fields if field in reaches), None),
        )


def _describe_step(trace: Trace, node: TracedNode) -> str:
    """What the label step of a node does, in a sentence."""
    fields = trace.fields_of(node.name)
    if fields:
        return describe_step(trace.steps[fields[0]])
    return SAME if node.operation is Operation.RESIDUAL else ""


def _reason_for_no_map(node: TracedNode) -> str:
    """Why a node has no label map."""
    if node.labeled:
        return "The images of a batch are mixed here, so there is no map."
    return "These numbers are mixing weights. They carry no content, so there is no map."


def _rule_names(trace: Trace) -> dict[str, str]:
    """The rule of each node and its file, from the current registry."""
    registry = current()
    found = {}
    for call in trace.calls:
        rule = registry.find(call.operator_names) if call.kind is CallKind.OPERATOR else None
        found[call.name] = _rule_name(rule) if rule else ""
    regions = find_regions(trace.calls, registry)
    return found | {name: _rule_name(region.rule) for name, region in regions.items()}


def _rule_name(rule: Rule) -> str:
    plain = inspect.unwrap(rule)
    code = getattr(plain, "__code__", None)
    where = f" in {_shorten_path(code.co_filename)}:{code.co_firstlineno}" if code else ""
    return f"{getattr(plain, '__qualname__', type(rule).__name__)}{where}"


def _call_text(node: torch.fx.Node) -> str:
    """The arguments of a call in the graph, shortened if they are long."""
    arguments = [str(value) for value in node.args]
    arguments += [f"{name}={value}" for name, value in node.kwargs.items()]
    text = ", ".join(arguments)
    return text if len(text) <= MAX_CALL_LENGTH else f"{text[:MAX_CALL_LENGTH]} …"


def _layout_text(layout: Layout | None) -> str:
    return "" if layout is None else str(layout)


def _shorten_source_line(line: str) -> str:
    """`file:line: code` with only the last parts of the file's path."""
    file, colon, rest = line.partition(":")
    return f"{_shorten_path(file)}{colon}{rest}" if line else ""


def _shorten_path(file: str) -> str:
    return "/".join(PurePath(file).parts[-PATH_PARTS_SHOWN:])
