"""The nodes of a report: each node of the label flow with all that is said of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import PurePath

import torch.fx

from labeltrace.capture.node_info import operator_names
from labeltrace.flow import Operation
from labeltrace.inspection.places import Place
from labeltrace.layout import Layout
from labeltrace.report.descriptions import INPUT, SAME, step_in_words
from labeltrace.report.module_tree import Folding
from labeltrace.report.schema import Node
from labeltrace.rule_api.call import Rule
from labeltrace.rule_api.registry import current
from labeltrace.tracing.regions import find_regions
from labeltrace.tracing.traced_node import TracedNode
from labeltrace.tracing.walk import LabelField, Trace

LONGEST_CALL = 160  # letters
PARTS_OF_PATH = 3  # of a file's path: enough to find it, and nothing of the machine


def flow_nodes(trace: Trace) -> tuple[TracedNode, ...]:
    """All nodes but constants."""
    return tuple(node for node in trace.nodes if node.operation is not Operation.CONSTANT)


def numbers(trace: Trace) -> dict[str, int]:
    """The index of each node in a report, the image first."""
    names = [trace.capture.traced_input, *(node.name for node in flow_nodes(trace))]
    return {name: index for index, name in enumerate(names)}


def described(
    trace: Trace,
    folding: Folding,
    places: Mapping[str, Place],
    maps: Mapping[LabelField, int],
    reaches: Mapping[LabelField, int],
) -> Iterator[Node]:
    """The nodes with their indices into the modules, label maps and reaches of a report."""
    index = numbers(trace)
    graph = {node.name: node for node in trace.capture.graph.nodes}
    rules = _rules(trace)
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
            about=_about(trace, node),
            call=_call(graph[node.name]),
            module=folding.innermost(node.module_path),
            path=node.module_path,
            kind=node.location.module_type,
            source=_without_folders(node.source_line),
            rule=rules[node.name],
            layout=_in_words(node.layout),
            approximation=node.approximation,
            inputs=tuple(index[name] for name in node.inputs if name in index),
            map=None if place is None else maps[place.field],
            why=_why(node) if place is None else "",
            reach=next((reaches[field] for field in fields if field in reaches), None),
        )


def _about(trace: Trace, node: TracedNode) -> str:
    """What a node's own step does."""
    fields = trace.fields_of(node.name)
    if fields:
        return step_in_words(trace.steps[fields[0]])
    return SAME if node.operation is Operation.RESIDUAL else ""


def _why(node: TracedNode) -> str:
    """Why a node has no label map."""
    if node.labelled:
        return "The images of a batch cannot be told apart here, so there is no map."
    return "These numbers are mixing weights. They carry no content, so there is no map."


def _rules(trace: Trace) -> dict[str, str]:
    """The rule of each node and its file, as the current registry has them."""
    registry = current()
    found = {}
    for node in trace.capture.graph.nodes:
        rule = registry.find(operator_names(node)) if node.op == "call_function" else None
        found[node.name] = _rule(rule) if rule else ""
    regions = find_regions(trace.capture, registry)
    return found | {node.name: _rule(region.rule) for node, region in regions.items()}


def _rule(rule: Rule) -> str:
    plain = inspect.unwrap(rule)
    code = getattr(plain, "__code__", None)
    where = f" in {_tail(code.co_filename)}:{code.co_firstlineno}" if code else ""
    return f"{getattr(plain, '__qualname__', type(rule).__name__)}{where}"


def _call(node: torch.fx.Node) -> str:
    """A call as its graph has it, cut where it is long."""
    arguments = [str(value) for value in node.args]
    arguments += [f"{name}={value}" for name, value in node.kwargs.items()]
    text = ", ".join(arguments)
    return text if len(text) <= LONGEST_CALL else f"{text[:LONGEST_CALL]} …"


def _in_words(layout: Layout | None) -> str:
    return "" if layout is None else str(layout)


def _without_folders(line: str) -> str:
    """`file:line: code` with the last parts of the file's path only."""
    file, colon, rest = line.partition(":")
    return f"{_tail(file)}{colon}{rest}" if line else ""


def _tail(file: str) -> str:
    return "/".join(PurePath(file).parts[-PARTS_OF_PATH:])
