"""Tracing: the one walk over a captured graph that applies the rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import networkx
import torch.fx
from rich.table import Table
from torch import Tensor
from torch.fx import Node

from labeltrace.call import Call, Rule
from labeltrace.capture import Capture
from labeltrace.checking import check_flows
from labeltrace.errors import LayoutError, UnknownOperatorError
from labeltrace.explaining import flow_graph, node_table, rule_stub
from labeltrace.flow import (
    Average,
    Carry,
    Constant,
    Flow,
    Labels,
    Operand,
    Operation,
    Step,
    Weights,
)
from labeltrace.layout import Layout, image, shape_text, simplify
from labeltrace.node import TracedNode
from labeltrace.reading import (
    Sizes,
    is_getitem,
    location,
    mutated_argument,
    operator_names,
    schema_arguments,
    storage_of,
)
from labeltrace.regions import Region, find_regions
from labeltrace.registry import Registry


@dataclass(frozen=True, slots=True)
class Field:
    """Stands for the label field that a node's step computes, or for the input's."""

    node: str
    output: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Replay:
    """A node computed once more from other inputs: mixing weights as they are without dropout."""

    node: Node
    substitutes: Mapping[Node, Source]


Source = Node | Replay
"""Where the label graph reads mixing weights."""


@dataclass(frozen=True, slots=True)
class Value:
    """What the walk knows of one tensor that comes from the image.

    ``source`` is what labels read in its place if it is mixing weights; ``summands`` counts the
    streams of a sum that may yet be part of a larger one.
    """

    layout: Layout
    field: Field | None
    source: Source
    bounded: bool = False
    nonnegative: bool = False
    features: bool = False
    pending: object = None
    summands: int = 1


Values = tuple[Value | None, ...]


@dataclass(frozen=True)
class Trace:
    """A model's operators and what each does to labels.

    Attributes:
        nodes: every operator's call in the order of the graph.
        capture: the captured graph; ``capture.fixed_batch_reason`` says why the batch is fixed.
        steps: the label steps by the field that they compute.
        outputs: a value for each leaf of the model's output, None for constants.
        input_field: the label field of the input.
        input_layout: the layout of the input.
    """

    nodes: tuple[TracedNode, ...]
    capture: Capture
    steps: Mapping[Field, Step] = field(repr=False)
    outputs: tuple[Value | None, ...] = field(repr=False)
    input_field: Field = field(repr=False)
    input_layout: Layout = field(repr=False)

    def counts(self) -> dict[str, int]:
        """How many nodes do what: from ``"spatial mixing"`` and its kin to a number."""
        counted = Counter(str(node.operation) for node in self.nodes)
        return {str(name): counted[name] for name in Operation if counted[name]}

    @cached_property
    def graph(self) -> networkx.DiGraph:
        """The label flow; see :func:`labeltrace.explaining.flow_graph`."""
        return flow_graph(self.nodes)

    def fields_of(self, node: str) -> tuple[Field, ...]:
        """The label fields that a node's step computes, one for each output that has one."""
        return self._fields_by_node.get(node, ())

    @cached_property
    def _fields_by_node(self) -> dict[str, tuple[Field, ...]]:
        found: dict[str, tuple[Field, ...]] = {}
        for key in self.steps:
            found[key.node] = (*found.get(key.node, ()), key)
        return found

    @property
    def approximate(self) -> tuple[TracedNode, ...]:
        """The nodes whose rule is an approximation; each says why."""
        return tuple(node for node in self.nodes if not node.exact)

    def table(self, title: str = "") -> Table:
        """The nodes as a rich table, grouped by module."""
        return node_table(self.nodes, title)


def trace_graph(capture: Capture, registry: Registry) -> Trace:
    """Apply the rules to every node of a captured graph.

    Raises:
        UnknownOperatorError: operators on the label's way have no rule; all of them are named.
        LayoutError: positions cannot be followed through some nodes; all of them are named.
    """
    walk = _Walk(capture, registry)
    for node in capture.graph.nodes:
        walk.visit(node)
    walk.raise_problems()
    return walk.trace()


@dataclass(frozen=True, slots=True)
class _Problem:
    node: Node
    operator: str
    message: str
    unknown: bool
    stub: str = ""

    def __str__(self) -> str:
        where = location(self.node)
        return f"{self.node.name} = {self.operator}: {self.message}\n    in {where}"


class _Poisoned:
    """Stands for the outputs of a node that could not be traced."""


class _Walk:
    """The state of one walk; made for :func:`trace_graph` alone."""

    def __init__(self, capture: Capture, registry: Registry) -> None:
        self.capture = capture
        self.registry = registry
        self.sizes = Sizes()
        self.values: dict[Node, Values | _Poisoned] = {}
        self.steps: dict[Field, Step] = {}
        self.computed: dict[Any, Field] = {}
        self.nodes: dict[Node, TracedNode] = {}
        self.problems: list[_Problem] = []
        self.outputs: tuple[Value | None, ...] = ()
        self.input_layout = Layout(())
        self.positions = {node: index for index, node in enumerate(capture.graph.nodes)}
        self.storages: dict[int, list[Node]] = {}
        self.regions = find_regions(capture, registry)

    # Nodes.

    def visit(self, node: Node) -> None:
        """Take one node in."""
        storage = storage_of(node)
        if storage is not None:
            self.storages.setdefault(storage, []).append(node)
        if node.op == "placeholder":
            self._visit_input(node)
        elif node.op == "output":
            leaves: Any = node.args[0]
            self.outputs = tuple(self._output(leaf) for leaf in leaves)
        elif node in self.regions:
            self._visit_region(node, self.regions[node])
        elif is_getitem(node):
            self._visit_getitem(node)
        elif node.op == "call_function":
            self._visit_call(node)

    def _visit_input(self, node: Node) -> None:
        if node.name != self.capture.traced_input:
            return
        self.input_layout = image(self.sizes.shape(node.meta["val"]), self.capture.channel_dim)
        self.values[node] = (Value(self.input_layout, Field(node.name), node),)

    def _visit_getitem(self, node: Node) -> None:
        whole: Any = node.args[0]
        index: Any = node.args[1]
        values = self.values.get(whole)
        if isinstance(values, _Poisoned):
            self.values[node] = values
        elif values is not None:
            value = values[index]
            self.values[node] = (value and replace(value, source=node),)

    def _visit_call(self, node: Node) -> None:
        read = self._inputs(node)
        if not read:
            self._record(node, Constant(), ())
            return
        names = operator_names(node)
        rule = self.registry.find(names)
        if rule is None:
            self._unknown(node, names[-1])
            return
        if any(isinstance(self.values[other], _Poisoned) for other in read):
            self.values[node] = _Poisoned()
            return
        try:
            self._apply(node, rule, names[-1], read)
        except LayoutError as error:
            self._problem(node, names[-1], str(error))

    def _apply(self, node: Node, rule: Rule, operator: str, read: list[Node]) -> None:
        call = Call(operator, self._arguments(node), self.sizes.shapes(node.meta.get("val")))
        flows = self._flows(call, rule)
        flows = tuple(self._adjusted(node, flow) for flow in flows)
        values = tuple(self._value(node, flow, index) for index, flow in enumerate(flows))
        self._write(node, values)
        self.values[node] = values
        self._record(node, flows[0], tuple(read), values)

    def _visit_region(self, node: Node, region: Region) -> None:
        """A module or function with a rule of its own, once its last node is reached."""
        if node is not region.last or not region.outputs:
            return
        read = [other for other in region.inputs if self._comes_from_image(other)]
        if not read:
            return
        if any(isinstance(self.values[other], _Poisoned) for other in read):
            self.values.update(dict.fromkeys(region.outputs, _Poisoned()))
            return
        try:
            self._apply_region(region, read)
        except LayoutError as error:
            self.problems.append(_Problem(region.last, region.name, str(error), False))
            self.values.update(dict.fromkeys(region.outputs, _Poisoned()))

    def _apply_region(self, region: Region, read: list[Node]) -> None:
        call = self._region_call(region)
        flows = self._flows(call, region.rule)
        values: list[Value | None] = []
        for index, (output, flow) in enumerate(zip(region.outputs, flows, strict=False)):
            values.append(self._region_value(region, output, flow, index))
            self.values[output] = (values[-1],)
        self._record(region.last, flows[0], tuple(read), tuple(values))
        self.nodes[region.last] = replace(self.nodes[region.last], operator=region.name)

    def _region_call(self, region: Region) -> Call:
        tensors = [n for n in region.inputs if isinstance(n.meta.get("val"), Tensor)]
        state = {entry.placeholder: entry.name for entry in self.capture.state}
        arguments: dict[str, Any] = {}
        parameters: dict[str, Operand] = {}
        for node in tensors:
            if node.name in state:
                name = state[node.name].removeprefix(f"{region.module_path}.")
                parameters[name] = self._argument(node, (name,))
            else:
                name = f"input{len(arguments)}"
                arguments[name] = self._argument(node, (name,))
        inner = {
            node.name: Operand((node.name,), self.sizes.shape(node.meta["val"]), tensor=node)
            for node in region.nodes
            if isinstance(node.meta.get("val"), Tensor)
        }
        outputs = tuple(self.sizes.shape(node.meta["val"]) for node in region.outputs)
        return Call(region.name, arguments, outputs, inner, parameters)

    def _region_value(self, region: Region, output: Node, flow: Flow, index: int) -> Value | None:
        if isinstance(flow, Constant):
            return None
        if isinstance(flow, Weights):
            return Value(simplify(flow.layout), None, output)
        return self._labelled_value(Field(region.last.name, index), output, flow, 1)

    def _inputs(self, node: Node) -> list[Node]:
        """The nodes among the arguments that come from the image, or may do so."""
        return [other for other in node.all_input_nodes if self._comes_from_image(other)]

    def _comes_from_image(self, node: Node) -> bool:
        values = self.values.get(node, ())
        return isinstance(values, _Poisoned) or any(value is not None for value in values)

    # Calls.

    def _arguments(self, node: Node) -> dict[str, Any]:
        return {
            name: self._argument(value, (name,)) for name, value in schema_arguments(node).items()
        }

    def _argument(self, value: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(value, (list, tuple)):
            return [self._argument(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, Node):
            return value
        example = value.meta.get("val")
        if not isinstance(example, Tensor):
            return self.sizes.of(example) if isinstance(example, torch.SymInt) else example
        known = self._single(value)
        if known is None:
            return Operand(path, self.sizes.shape(example), tensor=value)
        return Operand(
            path=path,
            shape=known.layout.shape,
            layout=known.layout,
            field=known.field,
            tensor=value if known.field is not None else known.source,
            bounded=known.bounded,
            nonnegative=known.nonnegative,
            features=known.features,
            pending=known.pending,
        )

    def _single(self, node: Node) -> Value | None:
        values = self.values.get(node, (None,))
        assert not isinstance(values, _Poisoned)
        return values[0]

    def _flows(self, call: Call, rule: Rule) -> tuple[Flow, ...]:
        returned = rule(call)
        flows = returned if isinstance(returned, tuple) else (returned,)
        check_flows(flows, call, rule)
        return flows

    def _value(self, node: Node, flow: Flow, index: int) -> Value | None:
        if isinstance(flow, Constant):
            return None
        if isinstance(flow, Weights):
            return self._weights(node, flow)
        summands = self._summands(node, flow)
        return self._labelled_value(Field(node.name, index), node, flow, summands)

    def _labelled_value(self, target: Field, node: Node, flow: Flow, summands: int) -> Value:
        """The value of an output that carries labels; a step is kept under its field."""
        if isinstance(flow, Carry):
            origin, bounded = flow.source.field, flow.source.bounded
            features = flow.source.features
            assert isinstance(origin, Field)
        else:
            assert isinstance(flow, Step)
            origin = self.computed.setdefault(_signature(flow), target)
            bounded = all(labels.operand.bounded for labels in flow.labels)
            features = any(labels.operand.features for labels in flow.labels)
            if origin is target:  # not the same label as that of an earlier step
                self.steps[target] = flow
        return Value(
            layout=simplify(flow.layout),
            field=origin,
            source=node,
            bounded=bounded if flow.bounded is None else flow.bounded,
            nonnegative=_nonnegative(flow) if flow.nonnegative is None else flow.nonnegative,
            features=features if flow.features is None else flow.features,
            summands=summands,
        )

    def _weights(self, node: Node, flow: Weights) -> Value:
        layout = simplify(flow.layout)
        return Value(layout, None, self._source(node, flow), pending=flow.pending)

    def _source(self, node: Node, flow: Weights) -> Source:
        """What labels read in the place of these weights: without the dropout before them."""
        substitutes = {
            other: value.source
            for other in self._inputs(node)
            if (value := self._single(other)) is not None
            and value.field is None
            and value.source is not other
        }
        if flow.before is not None:
            other = self._node_at(node, flow.before.path)
            return substitutes.get(other, other)
        return Replay(node, substitutes) if substitutes else node

    def _node_at(self, node: Node, path: tuple[str | int, ...]) -> Node:
        value: Any = schema_arguments(node)
        for key in path:
            value = value[key]
        assert isinstance(value, Node)
        return value

    # Sums.

    def _adjusted(self, node: Node, flow: Flow) -> Flow:
        """A sum of sums whose parts nobody else reads is one sum (contract, point 6)."""
        if isinstance(flow, Weights) and flow.before is not None and mutated_argument(node):
            reason = "dropout in place: the probabilities before it are gone"
            return replace(flow, before=None, approximation=reason)
        if not isinstance(flow, Average) or flow.operation is not Operation.RESIDUAL:
            return flow
        shares = tuple(
            share * self._parts(self._node_at(node, labels.operand.path))
            for labels, share in zip(flow.sources, flow.shares, strict=True)
        )
        return replace(flow, shares=shares)

    def _parts(self, node: Node) -> int:
        """The number of streams that a node adds to a sum."""
        value = self._single(node)
        if value is None or value.summands == 1 or len(_readers(node)) > 1:
            return 1
        if node in self.nodes:
            self.nodes[node] = replace(self.nodes[node], operation=Operation.PARTIAL_SUM)
        return value.summands

    def _summands(self, node: Node, flow: Flow) -> int:
        if flow.operation is not Operation.RESIDUAL:
            return 1
        return sum(self._parts(other) for other in self._inputs(node))

    # Writing in place.

    def _write(self, node: Node, values: Values) -> None:
        """An operator that writes to an argument: later reads of that tensor see the result.

        Raises:
            LayoutError: another view of the same memory is read later, with a label that this
                write has made untrue.
        """
        name = mutated_argument(node)
        if name is None or not values:
            return
        written = schema_arguments(node)[name]
        before = self._single(written) if isinstance(written, Node) else None
        after = values[0]
        if not isinstance(written, Node) or _same_label(before, after):
            return
        storage = storage_of(written)
        views = self.storages.get(storage, []) if storage is not None else []
        for view in views:
            if view in (written, node):
                continue
            if any(self.positions[user] > self.positions[node] for user in view.users):
                raise LayoutError(
                    f"it writes in place to {written.name}, and {view.name}, a view of the same "
                    "memory, is read later; write to a fresh tensor instead"
                )
        self.values[written] = values

    # Results.

    def _output(self, leaf: Any) -> Value | None:
        if not isinstance(leaf, Node) or isinstance(self.values.get(leaf), _Poisoned):
            return None
        return self._single(leaf)

    def _record(self, node: Node, flow: Flow, read: tuple[Node, ...], values: Values = ()) -> None:
        first = values[0] if values else None
        self.nodes[node] = TracedNode(
            name=node.name,
            operator=operator_names(node)[-1],
            operation=flow.operation,
            location=location(node),
            layout=first.layout if first else None,
            labelled=first is not None and first.field is not None,
            inputs=tuple(_producer(other).name for other in read),
            approximation=flow.approximation,
        )

    def _unknown(self, node: Node, operator: str) -> None:
        self.values[node] = _Poisoned()
        outputs = self.sizes.shapes(node.meta.get("val"))
        stub = rule_stub(operator, list(schema_arguments(node)), outputs)
        shapes = ", ".join(
            shape_text(self.sizes.shape(other.meta["val"]))
            for other in node.all_input_nodes
            if isinstance(other.meta.get("val"), Tensor)
        )
        results = ", ".join(shape_text(shape) for shape in outputs)
        message = f"no rule for {operator}, called with {shapes} -> {results}"
        self.problems.append(_Problem(node, operator, message, True, stub))

    def _problem(self, node: Node, operator: str, message: str) -> None:
        self.values[node] = _Poisoned()
        self.problems.append(_Problem(node, operator, message, False))

    def raise_problems(self) -> None:
        """Raise one error that names every node that could not be traced."""
        if not self.problems:
            return
        unknown = [problem for problem in self.problems if problem.unknown]
        lines = [f"{len(self.problems)} node(s) of the model cannot be followed:"]
        lines += [f"  {problem}" for problem in self.problems]
        if not unknown:
            lines.append(
                "What to do: rewrite that line so that positions and channels stay apart, or give "
                "align a rule for the operator: align(model, rules={...})."
            )
            raise LayoutError("\n".join(lines))
        lines.append("What to do: give align a rule for each operator, such as")
        for stub in dict.fromkeys(problem.stub for problem in unknown):
            lines.extend(("", *(f"    {line}" for line in stub.splitlines())))
        raise UnknownOperatorError("\n".join(lines))

    def trace(self) -> Trace:
        """The finished trace."""
        return Trace(
            nodes=tuple(self.nodes.values()),
            capture=self.capture,
            steps=self.steps,
            outputs=self.outputs,
            input_field=Field(self.capture.traced_input),
            input_layout=self.input_layout,
        )


def _nonnegative(flow: Flow) -> bool:
    """Whether a flow that only moves values moves such as are never below zero."""
    if flow.operation is not Operation.RELAYOUT:
        return False
    if isinstance(flow, Carry):
        return flow.source.nonnegative
    return all(labels.operand.nonnegative for labels in flow.labels)


def _signature(part: Any) -> Any:
    """What a label step computes, apart from what it is called: equal ones give equal labels."""
    match part:
        case Labels():
            return (part.operand.field, part.arrangement)
        case Operand():
            return part.tensor
        case Step():
            names = (f.name for f in fields(part) if f.name not in _NAMES)
            return (type(part), *(_signature(getattr(part, name)) for name in names))
        case tuple():
            return tuple(_signature(item) for item in part)
    return part


_NAMES = frozenset({"operation", "approximation", "bounded", "nonnegative", "features"})


def _same_label(before: Value | None, after: Value | None) -> bool:
    """Whether a write leaves the label as it was; weights are read from memory as they stand."""
    if before is None or after is None:
        return before is after
    return (before.field, before.layout) == (after.field, after.layout)


def _readers(node: Node) -> list[Node]:
    """The nodes that read a node's values, and not just its sizes."""
    return [user for user in node.users if user.target is not torch.ops.aten.sym_size.int]


def _producer(node: Node) -> Node:
    """The operator behind a node that picks one of several outputs."""
    while is_getitem(node):
        (node,) = node.all_input_nodes
    return node
