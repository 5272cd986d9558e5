"""What a walk could not follow, told in one error: where it is, what waits for it, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch.fx import Graph, Node

from labeltrace.capture.node_info import is_getitem, location, tensors_of, written_node
from labeltrace.errors import LabelTraceError, LayoutError, UnknownOperatorError
from labeltrace.layout import shape_text
from labeltrace.rule_api.call import Shape
from labeltrace.tracing.rule_stubs import UnknownCall, rule_stubs

MAX_CALLS_SHOWN = 8
"""How many calls of one operator are listed; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A node that positions cannot be followed through."""

    node: Node
    operator: str
    message: str

    def __str__(self) -> str:
        where = location(self.node)
        return f"{self.node.name} = {self.operator}: {self.message}\n    in {where}"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A node whose operator has no rule; ``operands`` are the shapes of its tensors."""

    node: Node
    operands: tuple[Shape, ...]
    call: UnknownCall


@dataclass(frozen=True, slots=True)
class CallGraph:
    """The operators of a graph that the labelled input reaches.

    ``merged`` has, for each node of a module or function that is one step, the node that stands
    for it.
    """

    graph: Graph
    entry: str
    merged: Mapping[Node, Node]

    def all(self) -> set[Node]:
        """Every operator that reads what comes from the image."""
        return self.downstream_of(node for node in self.graph.nodes if node.name == self.entry)

    def downstream_of(self, nodes: Iterable[Node]) -> set[Node]:
        """The operators that read what ``nodes`` compute or write, directly or not."""
        starts = set(nodes)
        reached: set[Node] = set()
        tensors: set[Node] = set()
        for node in self.graph.nodes:
            if node in starts or not tensors.isdisjoint(node.all_input_nodes):
                reached.add(node)
                tensors.add(node)
                written = written_node(node)
                if written is not None:
                    tensors.add(written)
        found = {self.merged.get(node, node) for node in reached - starts}
        return {node for node in found if _is_step(node)} - starts


def problems_error(
    problems: Sequence[Problem], unknown: Sequence[Unknown], steps: CallGraph
) -> LabelTraceError:
    """One error for all nodes that could not be traced.

    Operators without a rule come first, one paragraph each; then the nodes that no rule can follow.
    """
    by_operator: dict[str, list[Unknown]] = {}
    for call in unknown:
        by_operator.setdefault(call.call.operator, []).append(call)
    parts = [_summary(len(by_operator), len(problems))]
    total = len(steps.all()) if unknown else 0
    for operator, calls in by_operator.items():
        waiting = len(steps.downstream_of(call.node for call in calls))
        parts.append(_paragraph(operator, calls, waiting, total))
    if problems:
        parts.append("\n".join(f"  {problem}" for problem in problems))
    if not unknown:
        parts.append(
            "What to do: rewrite that line so that positions and channels stay apart, or give "
            "align a rule for the operator, or for the module around it: "
            "align(model, rules={...})."
        )
        return LayoutError("\n".join(parts))
    stubs = rule_stubs([call.call for call in unknown])
    parts.append(
        "What to do: say in a rule what each of these operators does to labels; docs/rules.md "
        "shows how.\nThis runs as it stands, and is where to start:"
    )
    indented = "\n".join(f"    {line}" if line else "" for line in stubs.splitlines())
    return UnknownOperatorError("\n".join(parts) + f"\n\n{indented}", by_operator)


def _summary(unknown: int, other: int) -> str:
    told = []
    if unknown:
        told.append(f"{pluralize(unknown, 'operator')} without a rule")
    if other:
        told.append(f"{pluralize(other, 'node')} that cannot be followed")
    return f"The model has {' and '.join(told)}:"


def _paragraph(operator: str, calls: Sequence[Unknown], waiting: int, total: int) -> str:
    share = f" ({waiting / total:.0%})" if total else ""
    head = (
        f"  no rule for {operator}: {pluralize(len(calls), 'call')}; {waiting} of "
        f"{pluralize(total, 'operator')} {'waits' if waiting == 1 else 'wait'} for it{share}"
    )
    lines = [head, *(_call_line(call) for call in calls[:MAX_CALLS_SHOWN])]
    if len(calls) > MAX_CALLS_SHOWN:
        lines.append(f"    and {pluralize(len(calls) - MAX_CALLS_SHOWN, 'more call')} of it")
    return "\n".join(lines)


def _call_line(found: Unknown) -> str:
    operands = ", ".join(shape_text(shape) for shape in found.operands)
    outputs = ", ".join(shape_text(shape) for shape in found.call.outputs) or "nothing"
    node = found.node
    return f"    {node.name}, called with {operands} -> {outputs}\n      in {location(node)}"


def pluralize(number: int, noun: str) -> str:
    """``1 call``, ``2 calls``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _is_step(node: Node) -> bool:
    """Whether a node is an operator on tensors, and not a size or one of several outputs."""
    if node.op != "call_function" or is_getitem(node):
        return False
    computes = any(True for _ in tensors_of(node.meta.get("val")))
    return computes or written_node(node) is not None
