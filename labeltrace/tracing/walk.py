"""Tracing: the one walk over a captured graph that applies the rules."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import networkx
import torch.fx
from rich.table import Table
from torch import Tensor
from torch.fx import Node

from labeltrace.capture.export import Capture
from labeltrace.capture.node_info import (
    Sizes,
    is_getitem,
    location,
    mutated_argument,
    operator_names,
    schema_arguments,
    storage_of,
    written_node,
)
from labeltrace.errors import LayoutError
from labeltrace.flow import (
    NOTHING_KNOWN,
    Average,
    Carry,
    ComputedTensor,
    Constant,
    Flow,
    LabelField,
    LabelStep,
    LinearMix,
    Mix,
    Operand,
    Operation,
    TensorSource,
    ValueFacts,
    Weights,
)
from labeltrace.layout import (
    Layout,
    factor_kinds,
    has_positions,
    input_layout,
    shape_text,
    simplify,
)
from labeltrace.rule_api.call import Call, Rule, Shape
from labeltrace.rule_api.registry import Registry, rule_name
from labeltrace.tracing.flow_checks import check_flows
from labeltrace.tracing.problems import CallGraph, Problem, Unknown, problems_error
from labeltrace.tracing.regions import Region, find_regions
from labeltrace.tracing.rule_stubs import UnknownCall
from labeltrace.tracing.summaries import flow_graph, node_table
from labeltrace.tracing.traced_node import TracedNode
from labeltrace.tracing.unknown_positions import added_to_weights


@dataclass(frozen=True, eq=False, slots=True)
class Recomputed(ComputedTensor):
    """A node computed once more from other inputs: mixing weights as they are without dropout."""

    node: Node
    substitutes: Mapping[Node, TensorSource]


@dataclass(frozen=True, slots=True)
class Value:
    """What the walk knows of one tensor that comes from the image.

    `source` is what labels read in its place if it is mixing weights; `facts` is what is known of
    its values; `summands` counts the streams of a sum that may yet be part of a larger one;
    `as_weights` is the same tensor read as mixing weights.
    """

    layout: Layout
    field: LabelField | None
    source: TensorSource
    facts: ValueFacts = NOTHING_KNOWN
    summands: int = 1
    as_weights: Value | None = None


Values = tuple[Value | None, ...]


@dataclass(frozen=True)
class Trace:
    """A model's operators and what each does to labels.

    Attributes:
        nodes: every operator's call in the order of the graph.
        capture: the captured graph; ``capture.fixed_batch_reason`` says why the batch is fixed.
        steps: the label steps by the field that they compute.
        outputs: a value for each leaf of the model's output, None for constants.
        labelled: what is known of every tensor that carries labels, by the name of its node.
        input_field: the label field of the input.
        input_layout: the layout of the input.
    """

    nodes: tuple[TracedNode, ...]
    capture: Capture
    steps: Mapping[LabelField, LabelStep] = field(repr=False)
    outputs: tuple[Value | None, ...] = field(repr=False)
    labelled: Mapping[str, Value] = field(repr=False)
    input_field: LabelField = field(repr=False)
    input_layout: Layout = field(repr=False)

    def counts(self) -> dict[str, int]:
        """How many nodes do what: from ``"spatial mixing"`` and its kin to a number."""
        counted = Counter(str(node.operation) for node in self.nodes)
        return {str(name): counted[name] for name in Operation if counted[name]}

    @cached_property
    def graph(self) -> networkx.DiGraph:
        """The label flow; see :func:`labeltrace.tracing.summaries.flow_graph`."""
        return flow_graph(self.nodes)

    def fields_of(self, node: str) -> tuple[LabelField, ...]:
        """The label fields that a node's step computes, one for each output that has one."""
        return self._fields_by_node.get(node, ())

    @cached_property
    def _fields_by_node(self) -> dict[str, tuple[LabelField, ...]]:
        found: dict[str, tuple[LabelField, ...]] = {}
        for key in self.steps:
            found[key.node] = (*found.get(key.node, ()), key)
        return found

    @cached_property
    def module_paths(self) -> Mapping[str, str]:
        """The module in which each node's call stands, by the node's name."""
        return {node.name: location(node).module_path for node in self.capture.graph.nodes}

    @cached_property
    def order(self) -> Mapping[str, int]:
        """The place of each node in the graph, by its name."""
        return {node.name: index for index, node in enumerate(self.capture.graph.nodes)}

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


class Failed:
    """Stands for the outputs of a node that could not be traced."""


@dataclass(frozen=True, slots=True)
class PositionsUnknown:
    """Stands for outputs whose positions cannot be followed, and why that is.

    See :mod:`labeltrace.tracing.unknown_positions`.
    """

    problems: tuple[Problem, ...]


class _Walk:
    """The state of one walk; made for :func:`trace_graph` alone."""

    def __init__(self, capture: Capture, registry: Registry) -> None:
        self.capture = capture
        self.registry = registry
        self.sizes = Sizes()
        self.values: dict[Node, Values | Failed | PositionsUnknown] = {}
        self.steps: dict[LabelField, LabelStep] = {}
        self.computed: dict[tuple[object, ...], LabelField] = {}
        self.nodes: dict[Node, TracedNode] = {}
        self.problems: list[Problem] = []
        self.unknown: list[Unknown] = []
        self.outputs: tuple[Value | None, ...] = ()
        self.input_layout = Layout(())
        self.positions = {node: index for index, node in enumerate(capture.graph.nodes)}
        self.storages: dict[int, list[Node]] = {}
        self.written: dict[int | None, int] = {}  # memory, and where it was last written to
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
            written = written_node(node)
            if written is not None:
                self.written[storage_of(written)] = self.positions[node]

    def _visit_input(self, node: Node) -> None:
        if node.name != self.capture.traced_input:
            return
        self.input_layout = input_layout(
            self.sizes.shape(node.meta["val"]), self.capture.channel_dim
        )
        self.values[node] = (Value(self.input_layout, LabelField(node.name), node),)

    def _visit_getitem(self, node: Node) -> None:
        whole: Any = node.args[0]
        index: Any = node.args[1]
        values = self.values.get(whole)
        if isinstance(values, (Failed, PositionsUnknown)):
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
        if any(isinstance(self.values[other], Failed) for other in read):
            self.values[node] = Failed()
            return
        call = Call(names[-1], self._arguments(node), self._output_shapes(node))
        unplaced = [other for other in read if isinstance(self.values[other], PositionsUnknown)]
        if unplaced:
            placed = added_to_weights(call, names, unplaced)
            if placed is call:
                self._propagate_unknown(node, read, unplaced)
                return
            call = placed
        try:
            self._apply(node, rule, call, read)
        except LayoutError as error:
            if written_node(node) is not None:
                self._problem(node, names[-1], str(error))
                return
            self._mark_unknown(node, (Problem(node, names[-1], str(error)),), read)

    def _propagate_unknown(self, node: Node, read: list[Node], unplaced: list[Node]) -> None:
        """A step of unplaced values alone gives such values; any other one is an error."""
        problems: dict[Problem, None] = {}
        for other in unplaced:
            value = self.values[other]
            assert isinstance(value, PositionsUnknown)
            problems.update(dict.fromkeys(value.problems))
        if len(unplaced) == len(read) and written_node(node) is None:
            self._mark_unknown(node, tuple(problems), read)
            return
        self._report(problems)
        self._poison(node)

    def _mark_unknown(self, node: Node, problems: tuple[Problem, ...], read: list[Node]) -> None:
        self.values[node] = PositionsUnknown(problems)
        self._record(node, Constant(operation=Operation.WEIGHTS), tuple(read))

    def _apply(self, node: Node, rule: Rule, call: Call, read: list[Node]) -> None:
        flows = self._flows(call, rule, node)
        if any(self._alternative(other) is not None for other in read):
            flows = self._apply_as_weights(node, call, rule, flows)
        flows = tuple(self._merge_residual_sum(node, flow) for flow in flows)
        values = tuple(self._value(node, flow, index) for index, flow in enumerate(flows))
        self._write(node, values)
        self.values[node] = values
        self._record(node, flows[0], tuple(read), values)

    def _apply_as_weights(
        self, node: Node, call: Call, rule: Rule, flows: tuple[Flow, ...]
    ) -> tuple[Flow, ...]:
        """What the rule says where streams are read as the mixing weights that they may be too.

        If they mix another stream then, that is what the product does.  Linear steps keep both
        readings.
        """
        weights = replace(call, arguments=self._arguments(node, as_weights=True))
        try:
            others = self._flows(weights, rule, node)
        except LayoutError:  # they are no weights
            return flows
        return tuple(map(_prefer_mixing, flows, others))

    def _alternative(self, node: Node) -> Value | None:
        value = self._first_value(node)
        return value and value.as_weights

    def _visit_region(self, node: Node, region: Region) -> None:
        """A module or function with a rule of its own, once its last node is reached."""
        if node is not region.last or not region.outputs:
            return
        read = [other for other in region.inputs if self._comes_from_image(other)]
        if not read:
            return
        if any(isinstance(self.values[other], (Failed, PositionsUnknown)) for other in read):
            for other in read:
                self._read_label(other)
            self.values.update(dict.fromkeys(region.outputs, Failed()))
            return
        try:
            self._apply_region(region, read)
        except LayoutError as error:
            self.problems.append(Problem(region.last, region.name, str(error)))
            self.values.update(dict.fromkeys(region.outputs, Failed()))

    def _apply_region(self, region: Region, read: list[Node]) -> None:
        call = self._region_call(region)
        flows = self._flows(call, region.rule, region.last)
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
        return self._labelled_value(LabelField(region.last.name, index), output, flow, 1)

    def _inputs(self, node: Node) -> list[Node]:
        """The nodes among the arguments that come from the image, or may do so."""
        return [other for other in node.all_input_nodes if self._comes_from_image(other)]

    def _comes_from_image(self, node: Node) -> bool:
        values = self.values.get(node, ())
        if isinstance(values, (Failed, PositionsUnknown)):
            return True
        return any(value is not None for value in values)

    # Calls.

    def _arguments(self, node: Node, *, as_weights: bool = False) -> dict[str, Any]:
        return {
            name: self._argument(value, (name,), as_weights=as_weights)
            for name, value in schema_arguments(node).items()
        }

    def _argument(
        self, value: Any, path: tuple[str | int, ...], *, as_weights: bool = False
    ) -> Any:
        if isinstance(value, (list, tuple)):
            return [
                self._argument(item, (*path, index), as_weights=as_weights)
                for index, item in enumerate(value)
            ]
        if not isinstance(value, Node):
            return value
        example = value.meta.get("val")
        if not isinstance(example, Tensor):
            return self.sizes.of(example) if isinstance(example, torch.SymInt) else example
        known = self._first_value(value)
        if known is None:
            return Operand(path, self.sizes.shape(example), tensor=value)
        if as_weights and known.as_weights is not None:
            known = known.as_weights
        return Operand(
            path=path,
            shape=known.layout.shape,
            layout=known.layout,
            field=known.field,
            tensor=value if known.field is not None else known.source,
            facts=self._still_valid(known.facts),
        )

    def _still_valid(self, facts: ValueFacts) -> ValueFacts:
        """The facts now: operands of a product that have been written to cannot be read again."""
        factors = facts.product
        if factors is None:
            return facts
        both = (factors.first, factors.second)
        read = [one.tensor for one in both if not one.labelled] or [one.tensor for one in both]
        nodes = [tensor for tensor in read if isinstance(tensor, Node)]
        changed = any(self.written.get(storage_of(n), -1) > self.positions[n] for n in nodes)
        return facts.with_product(factors.after_other_step()) if changed else facts

    def _first_value(self, node: Node) -> Value | None:
        values = self.values.get(node, (None,))
        assert not isinstance(values, Failed)
        return None if isinstance(values, PositionsUnknown) else values[0]

    def _output_shapes(self, node: Node) -> tuple[Shape, ...]:
        """The shapes of a call's outputs; what it writes to, where it returns nothing."""
        written = written_node(node)
        value = node.meta.get("val")
        return self.sizes.shapes(written.meta["val"] if value is None and written else value)

    def _flows(self, call: Call, rule: Rule, node: Node) -> tuple[Flow, ...]:
        with _rule_named(rule, call, node):
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
        return self._labelled_value(LabelField(node.name, index), node, flow, summands)

    def _labelled_value(self, target: LabelField, node: Node, flow: Flow, summands: int) -> Value:
        """The value of an output that carries labels; a step is kept under its field."""
        if isinstance(flow, Carry):
            assert flow.source.field is not None
            origin = flow.source.field
        else:
            assert isinstance(flow, LabelStep)
            origin = self.computed.setdefault(flow.identity(), target)
            if origin is target:  # not the same label as that of an earlier step
                self.steps[target] = flow
        return Value(
            layout=simplify(flow.layout),
            field=origin,
            source=node,
            facts=flow.output_facts,
            summands=summands,
            as_weights=self._weights(node, flow.as_weights) if flow.as_weights else None,
        )

    def _weights(self, node: Node, flow: Weights) -> Value:
        return Value(
            layout=simplify(flow.layout),
            field=None,
            source=self._source(node, flow),
            facts=flow.output_facts,
        )

    def _source(self, node: Node, flow: Weights) -> TensorSource:
        """What labels read in the place of these weights: without the dropout before them."""
        substitutes = {
            other: value.source
            for other in self._inputs(node)
            if (value := self._first_value(other)) is not None
            and value.field is None
            and value.source is not other
        }
        if flow.before_dropout is not None:
            other = self._node_at(node, flow.before_dropout.path)
            return substitutes.get(other, other)
        return Recomputed(node, substitutes) if substitutes else node

    def _node_at(self, node: Node, path: tuple[str | int, ...]) -> Node:
        value: Any = schema_arguments(node)
        for key in path:
            value = value[key]
        assert isinstance(value, Node)
        return value

    # Sums.

    def _merge_residual_sum(self, node: Node, flow: Flow) -> Flow:
        """A sum of sums whose parts nobody else reads is one sum (contract, point 6)."""
        if isinstance(flow, Weights) and flow.before_dropout is not None and mutated_argument(node):
            reason = "dropout in place: the probabilities before it are gone"
            return replace(flow, before_dropout=None, approximation=reason)
        if not isinstance(flow, Average) or flow.operation is not Operation.RESIDUAL:
            return flow
        shares = tuple(
            share * self._summand_count(self._node_at(node, labels.operand.path))
            for labels, share in zip(flow.sources, flow.shares, strict=True)
        )
        return replace(flow, shares=shares)

    def _summand_count(self, node: Node) -> int:
        """The number of streams that a node adds to a sum."""
        value = self._first_value(node)
        if value is None or value.summands == 1 or len(_readers(node)) > 1:
            return 1
        if node in self.nodes:
            self.nodes[node] = replace(self.nodes[node], operation=Operation.PARTIAL_SUM)
        return value.summands

    def _summands(self, node: Node, flow: Flow) -> int:
        if flow.operation is not Operation.RESIDUAL:
            return 1
        return sum(self._summand_count(other) for other in self._inputs(node))

    # Writing in place.

    def _write(self, node: Node, values: Values) -> None:
        """An operator that writes to an argument: later reads of that tensor see the result.

        Raises:
            LayoutError: another view of the same memory is read later, with a label that this
                write has made untrue.
        """
        written = written_node(node)
        if written is None or not values:
            return
        before, after = self._first_value(written), values[0]
        if _same_label(before, after):
            return
        storage = storage_of(written)
        views = self.storages.get(storage, []) if storage is not None else []
        for view in views:
            if view in (written, node):
                continue
            if _is_same_view(view, written):
                self.values[view] = values
            elif any(self.positions[user] > self.positions[node] for user in view.users):
                raise LayoutError(
                    f"it writes in place to {written.name}, and {view.name}, a view of the same "
                    "memory, is read later; write to a fresh tensor instead"
                )
        self.values[written] = values

    # Results.

    def _output(self, leaf: Any) -> Value | None:
        if not isinstance(leaf, Node) or isinstance(self.values.get(leaf), Failed):
            return None
        self._read_label(leaf)
        return self._first_value(leaf)

    def _read_label(self, node: Node) -> None:
        """Something reads the label of a node: an error if its positions are not known."""
        value = self.values.get(node)
        if isinstance(value, PositionsUnknown):
            self._report(value.problems)

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
        operands = [
            self.sizes.shape(other.meta["val"])
            for other in node.all_input_nodes
            if isinstance(other.meta.get("val"), Tensor)
        ]
        self.unknown.append(Unknown(node, tuple(operands), self._unknown_call(node, operator)))
        self._poison(node)

    def _unknown_call(self, node: Node, operator: str) -> UnknownCall:
        """The call, with the operand whose label it most likely moves."""
        outputs = self._output_shapes(node)
        arguments = schema_arguments(node)
        found = [
            (not self._may_carry_labels(other), self.sizes.shape(other.meta["val"]), path, other)
            for path, other in _nodes_in(arguments)
            if self._comes_from_image(other) and isinstance(other.meta.get("val"), Tensor)
        ]
        found.sort(key=lambda candidate: (candidate[0], candidate[1] not in outputs))
        _, shape, path, source = found[0]
        return UnknownCall(
            operator=operator,
            arguments=tuple(arguments),
            source=path,
            shape=shape,
            channels=self._channels(source, shape),
            outputs=outputs,
        )

    def _may_carry_labels(self, node: Node) -> bool:
        if isinstance(self.values[node], (Failed, PositionsUnknown)):
            return True
        value = self._first_value(node)
        return value is not None and value.field is not None

    def _channels(self, node: Node, shape: Shape) -> tuple[int, ...]:
        """The axes of a tensor without positions; those of the input where it is not known."""
        value = None if isinstance(self.values[node], Failed) else self._first_value(node)
        if value is not None:
            axes = value.layout.axes
            return tuple(dim for dim, axis in enumerate(axes) if not has_positions(axis))
        return (self.capture.channel_dim,) if len(shape) == len(self.input_layout.axes) else ()

    def _problem(self, node: Node, operator: str, message: str) -> None:
        self._poison(node)
        self.problems.append(Problem(node, operator, message))

    def _report(self, problems: Iterable[Problem]) -> None:
        self.problems.extend(problem for problem in problems if problem not in self.problems)

    def _poison(self, node: Node) -> None:
        """Nothing is known of what a node computes or writes, nor of all that reads it later."""
        self.values[node] = Failed()
        written = written_node(node)
        if written is not None:
            self.values[written] = Failed()

    def raise_problems(self) -> None:
        """Raise one error that names every node that could not be traced."""
        self.problems.sort(key=lambda problem: self.positions[problem.node])
        if self.problems or self.unknown:
            merged = {node: region.last for node, region in self.regions.items()}
            steps = CallGraph(self.capture.graph, self.capture.traced_input, merged)
            raise problems_error(self.problems, self.unknown, steps)

    def _labelled(self) -> Iterator[tuple[Node, Value]]:
        for node in self.positions:  # in the order of the graph
            values = self.values.get(node)
            if isinstance(values, tuple) and values and values[0] and values[0].field:
                yield node, values[0]

    def trace(self) -> Trace:
        """The finished trace."""
        return Trace(
            nodes=tuple(self.nodes.values()),
            capture=self.capture,
            steps=self.steps,
            outputs=self.outputs,
            labelled={node.name: value for node, value in self._labelled()},
            input_field=LabelField(self.capture.traced_input),
            input_layout=self.input_layout,
        )


def _prefer_mixing(flow: Flow, other: Flow) -> Flow:
    """Of what a step does and what it does with weights for streams: what it is."""
    if isinstance(other, LinearMix) or (isinstance(other, Mix) and isinstance(flow, Weights)):
        return other
    linear = isinstance(flow, Carry) and flow.is_linear
    if linear and isinstance(other, Weights) and flow.as_weights is None:
        return replace(flow, as_weights=other)
    return flow


def _is_same_view(one: Node, other: Node) -> bool:
    """Whether two views of the same memory are of the same elements, in the same places."""
    first, second = one.meta["val"], other.meta["val"]
    return all(  # as text, since to compare dynamic sizes is to fix them
        str(getattr(first, part)()) == str(getattr(second, part)())
        for part in ("size", "stride", "storage_offset")
    )


def _same_label(before: Value | None, after: Value | None) -> bool:
    """Whether a write leaves the label as it was; weights are read from memory as they stand."""
    if before is None or after is None:
        return before is after
    if before.field is None and after.field is None:
        return factor_kinds(before.layout) == factor_kinds(after.layout)
    return (before.field, before.layout) == (after.field, after.layout)


def _nodes_in(value: Any, path: str = "") -> Iterator[tuple[str, Node]]:
    """The nodes among a call's arguments, with their places as a rule writes them."""
    if isinstance(value, Node):
        yield path, value
    elif isinstance(value, (Mapping, list, tuple)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            place = f'["{key}"]' if isinstance(key, str) else f"[{key}]"
            yield from _nodes_in(item, path + place)


@contextlib.contextmanager
def _rule_named(rule: Rule, call: Call, node: Node) -> Iterator[None]:
    """An error in a rule's own code leaves with a note of the rule and of the call it was given."""
    try:
        yield
    except LayoutError:
        raise  # said on purpose; reported with all the others
    except Exception as error:
        error.add_note(
            f"raised in the rule {rule_name(rule)} for {node.name} = {call.operator}, "
            f"with the arguments {', '.join(call.arguments)} -> "
            f"{', '.join(map(shape_text, call.outputs))}\n  in {location(node)}"
        )
        raise


def _readers(node: Node) -> list[Node]:
    """The nodes that read a node's values, and not just its sizes."""
    return [user for user in node.users if user.target is not torch.ops.aten.sym_size.int]


def _producer(node: Node) -> Node:
    """The operator behind a node that picks one of several outputs."""
    while is_getitem(node):
        (node,) = node.all_input_nodes
    return node
