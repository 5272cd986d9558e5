"""Regions: runs of nodes that a rule for a module class or function takes as one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from labeltrace.capture.captured import Capture
from labeltrace.capture.function_tags import FUNCTION_TAG
from labeltrace.capture.node_info import clean_path
from labeltrace.rule_api.call import Rule
from labeltrace.rule_api.registry import Registry


@dataclass(frozen=True, slots=True)
class Region:
    """One call of a module or function.

    ``inputs`` are the nodes that it reads from outside, in the order in which it does so;
    ``outputs`` its own nodes that are read outside; ``module_path`` is empty for functions.
    """

    name: str
    rule: Rule
    module_path: str
    nodes: tuple[Node, ...]
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]

    @property
    def last(self) -> Node:
        """The node after which the region's values are all there."""
        return self.nodes[-1]


def find_regions(capture: Capture, registry: Registry) -> dict[Node, Region]:
    """The region of each node that lies in one; the outermost module or function counts."""
    if not registry.modules and not registry.functions:
        return {}
    members: dict[str, list[Node]] = {}
    owners: dict[str, tuple[str, Rule, str]] = {}
    for node in capture.graph.nodes:
        found = _owner(node, capture, registry) if node.op == "call_function" else None
        if found is not None:
            key, owner = found
            owners[key] = owner
            members.setdefault(key, []).append(node)
    regions: dict[Node, Region] = {}
    for key, nodes in members.items():
        region = _region(*owners[key], nodes)
        regions.update(dict.fromkeys(nodes, region))
    return regions


def _owner(
    node: Node, capture: Capture, registry: Registry
) -> tuple[str, tuple[str, Rule, str]] | None:
    """The key, and name, rule and module path, of the outermost region around a node."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    for key, (path, _) in stack.items():
        cleaned = clean_path(path)
        kind = capture.module_types.get(cleaned)
        rule = registry.for_module(kind) if kind is not None else None
        if kind is not None and rule is not None:
            return key, (kind.__qualname__, rule, cleaned)
    tag = (node.meta.get("custom") or {}).get(FUNCTION_TAG)
    if tag is not None:
        function: Callable[..., Any] = capture.functions[tag]
        return tag, (function.__qualname__, registry.functions[function], "")
    return None


def _region(name: str, rule: Rule, module_path: str, nodes: list[Node]) -> Region:
    inside = set(nodes)
    read = [other for node in nodes for other in node.all_input_nodes if other not in inside]
    return Region(
        name=name,
        rule=rule,
        module_path=module_path,
        nodes=tuple(nodes),
        inputs=tuple(dict.fromkeys(read)),
        outputs=tuple(node for node in nodes if any(user not in inside for user in node.users)),
    )
