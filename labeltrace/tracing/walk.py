"""The walk over the calls of a model that applies the rules."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import networkx
from rich.table import Table

from labeltrace.capture.call_records import CallKind, CallRecord, ModelCalls
from labeltrace.capture.export import Capture
from labeltrace.capture.graph_records import read_graph
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
    ValueRef,
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
    """A call computed once more from other inputs: mixing weights as they are without dropout.

    `substitutes` has what it reads instead, by the names of its inputs.
    """

    call: str
    substitutes: Mapping[str, TensorSource]


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
        calls: the record of each call that the graph makes.
        steps: the label steps by the field that they compute.
        outputs: a value for each leaf of the model's output, None for constants.
        labelled: what is known of every tensor that carries labels, by the name of its node.
        input_field: the label field of the input.
        input_layout: the layout of the input.
    """

    nodes: tuple[TracedNode, ...]
    capture: Capture
    calls: ModelCalls = field(repr=False)
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
        return {call.name: call.location.module_path for call in self.calls}

    @cached_property
    def order(self) -> Mapping[str, int]:
        """The place of each node in the graph, by its name."""
        return {call.name: call.index for call in self.calls}

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
    return trace_calls(read_graph(capture), registry, capture)


def trace_calls(calls: ModelCalls, registry: Registry, capture: Capture) -> Trace:
    """Apply the rules to every call of a model; `capture` is kept in the trace, and not read.

    Raises:
        UnknownOperatorError: operators on the label's way have no rule; all of them are named.
        LayoutError: positions cannot be followed through some calls; all of them are named.
    """
    walk = _Walk(calls, registry)
    for call in calls:
        walk.visit(call)
    walk.raise_problems()
    return walk.trace(capture)


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

    def __init__(self, calls: ModelCalls, registry: Registry) -> None:
        self.calls = calls
        self.registry = registry
        self.values: dict[str, Values | Failed | PositionsUnknown] = {}
        self.steps: dict[LabelField, LabelStep] = {}
        self.computed: dict[tuple[object, ...], LabelField] = {}
        self.nodes: dict[str, TracedNode] = {}
        self.problems: list[Problem] = []
        self.unknown: list[Unknown] = []
        self.outputs: tuple[Value | None, ...] = ()
        self.input_layout = Layout(())
        self.storages: dict[int, list[CallRecord]] = {}
        self.written: dict[int | None, int] = {}  # memory, and where it was last written to
        self.regions = find_regions(calls, registry)

    # Nodes.

    def visit(self, call: CallRecord) -> None:
        """Take one call in."""
        if call.tensor is not None:
            self.storages.setdefault(call.tensor.storage, []).append(call)
        if call.kind is CallKind.INPUT:
            self._visit_input(call)
        elif call.kind is CallKind.OUTPUT:
            self.outputs = tuple(self._output(leaf) for leaf in call.arguments["leaves"])
        elif call.name in self.regions:
            self._visit_region(call, self.regions[call.name])
        elif call.kind is CallKind.ITEM:
            self._visit_item(call)
        else:
            self._visit_operator(call)
            if call.written is not None:
                self.written[self._storage(call.written)] = call.index

    def _storage(self, name: str) -> int | None:
        tensor = self.calls[name].tensor
        return None if tensor is None else tensor.storage

    def _visit_input(self, call: CallRecord) -> None:
        if call.name != self.calls.traced_input:
            return
        assert call.tensor is not None
        self.input_layout = input_layout(call.tensor.shape, self.calls.channel_dim)
        value = Value(self.input_layout, LabelField(call.name), ValueRef(call.name))
        self.values[call.name] = (value,)

    def _visit_item(self, call: CallRecord) -> None:
        values = self.values.get(call.arguments["source"].name)
        if isinstance(values, (Failed, PositionsUnknown)):
            self.values[call.name] = values
        elif values is not None:
            value = values[call.arguments["index"]]
            self.values[call.name] = (value and replace(value, source=ValueRef(call.name)),)

    def _visit_operator(self, record: CallRecord) -> None:
        read = self._inputs(record)
        if not read:
            self._record(record, Constant(), ())
            return
        rule = self.registry.find(record.operator_names)
        if rule is None:
            self._unknown(record)
            return
        if any(isinstance(self.values[other], Failed) for other in read):
            self.values[record.name] = Failed()
            return
        call = Call(record.operator, self._arguments(record), self._output_shapes(record))
        unplaced = [other for other in read if isinstance(self.values[other], PositionsUnknown)]
        if unplaced:
            tensors = {ValueRef(other) for other in unplaced}
            placed = added_to_weights(call, record.operator_names, tensors)
            if placed is call:
                self._propagate_unknown(record, read, unplaced)
                return
            call = placed
        try:
            self._apply(record, rule, call, read)
        except LayoutError as error:
            if record.written is not None:
                self._problem(record, str(error))
                return
            self._mark_unknown(record, (Problem(record, record.operator, str(error)),), read)

    def _propagate_unknown(self, call: CallRecord, read: list[str], unplaced: list[str]) -> None:
        """A step of unplaced values alone gives such values; any other one is an error."""
        problems: dict[Problem, None] = {}
        for other in unplaced:
            value = self.values[other]
            assert isinstance(value, PositionsUnknown)
            problems.update(dict.fromkeys(value.problems))
        if len(unplaced) == len(read) and call.written is None:
            self._mark_unknown(call, tuple(problems), read)
            return
        self._report(problems)
        self._poison(call)

    def _mark_unknown(
        self, call: CallRecord, problems: tuple[Problem, ...], read: list[str]
    ) -> None:
        self.values[call.name] = PositionsUnknown(problems)
        self._record(call, Constant(operation=Operation.WEIGHTS), tuple(read))

    def _apply(self, record: CallRecord, rule: Rule, call: Call, read: list[str]) -> None:
        flows = self._flows(call, rule, record)
        if any(self._alternative(other) is not None for other in read):
            flows = self._apply_as_weights(record, call, rule, flows)
        flows = tuple(self._merge_residual_sum(record, flow) for flow in flows)
        values = tuple(self._value(record, flow, index) for index, flow in enumerate(flows))
        self._write(record, values)
        self.values[record.name] = values
        self._record(record, flows[0], tuple(read), values)

    def _apply_as_weights(
        self, record: CallRecord, call: Call, rule: Rule, flows: tuple[Flow, ...]
    ) -> tuple[Flow, ...]:
        """What the rule says where streams are read as the mixing weights that they may be too.

        If they mix another stream then, that is what the product does.  Linear steps keep both
        readings.
        """
        weights = replace(call, arguments=self._arguments(record, as_weights=True))
        try:
            others = self._flows(weights, rule, record)
        except LayoutError:  # they are no weights
            return flows
        return tuple(map(_prefer_mixing, flows, others))

    def _alternative(self, name: str) -> Value | None:
        value = self._first_value(name)
        return value and value.as_weights

    def _visit_region(self, call: CallRecord, region: Region) -> None:
        """A module or function with a rule of its own, once its last call is reached."""
        if call is not region.last or not region.outputs:
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

    def _apply_region(self, region: Region, read: list[str]) -> None:
        call = self._region_call(region)
        flows = self._flows(call, region.rule, region.last)
        values: list[Value | None] = []
        for index, (output, flow) in enumerate(zip(region.outputs, flows, strict=False)):
            values.append(self._region_value(region, output, flow, index))
            self.values[output] = (values[-1],)
        last = region.last.name
        self._record(region.last, flows[0], tuple(read), tuple(values))
        self.nodes[last] = replace(self.nodes[last], operator=region.name)

    def _region_call(self, region: Region) -> Call:
        arguments: dict[str, Any] = {}
        parameters: dict[str, Operand] = {}
        for name in region.inputs:
            if self.calls[name].tensor is None:
                continue
            if name in self.calls.state:
                inner_name = self.calls.state[name].removeprefix(f"{region.module_path}.")
                parameters[inner_name] = self._argument(ValueRef(name), (inner_name,))
            else:
                argument = f"input{len(arguments)}"
                arguments[argument] = self._argument(ValueRef(name), (argument,))
        inner = {
            call.name: Operand((call.name,), call.tensor.shape, tensor=ValueRef(call.name))
            for call in region.calls
            if call.tensor is not None
        }
        outputs = tuple(self._shape(name) for name in region.outputs)
        return Call(region.name, arguments, outputs, inner, parameters)

    def _shape(self, name: str) -> Shape:
        tensor = self.calls[name].tensor
        assert tensor is not None
        return tensor.shape

    def _region_value(self, region: Region, output: str, flow: Flow, index: int) -> Value | None:
        if isinstance(flow, Constant):
            return None
        if isinstance(flow, Weights):
            return Value(simplify(flow.layout), None, ValueRef(output))
        field = LabelField(region.last.name, index)
        return self._labelled_value(field, self.calls[output], flow, 1)

    def _inputs(self, call: CallRecord) -> list[str]:
        """The names of the inputs that come from the image, or may do so."""
        return [other for other in call.inputs if self._comes_from_image(other)]

    def _comes_from_image(self, name: str) -> bool:
        values = self.values.get(name, ())
        if isinstance(values, (Failed, PositionsUnknown)):
            return True
        return any(value is not None for value in values)

    # Calls.

    def _arguments(self, call: CallRecord, *, as_weights: bool = False) -> dict[str, Any]:
        return {
            name: self._argument(value, (name,), as_weights=as_weights)
            for name, value in call.arguments.items()
        }

    def _argument(
        self, value: Any, path: tuple[str | int, ...], *, as_weights: bool = False
    ) -> Any:
        if isinstance(value, tuple):
            return [
                self._argument(item, (*path, index), as_weights=as_weights)
                for index, item in enumerate(value)
            ]
        if not isinstance(value, ValueRef):
            return value
        tensor = self.calls[value.name].tensor
        if tensor is None:
            return value
        known = self._first_value(value.name)
        if known is None:
            return Operand(path, tensor.shape, tensor=value)
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
        calls = [self.calls[tensor.name] for tensor in read if isinstance(tensor, ValueRef)]
        changed = any(self.written.get(self._storage(c.name), -1) > c.index for c in calls)
        return facts.with_product(factors.after_other_step()) if changed else facts

    def _first_value(self, name: str) -> Value | None:
        values = self.values.get(name, (None,))
        assert not isinstance(values, Failed)
        return None if isinstance(values, PositionsUnknown) else values[0]

    def _output_shapes(self, call: CallRecord) -> tuple[Shape, ...]:
        """The shapes of a call's outputs; what it writes to, where it returns nothing."""
        tensors = call.tensors
        if not tensors and call.written is not None:
            tensors = self.calls[call.written].tensors
        return tuple(tensor.shape for tensor in tensors)

    def _flows(self, call: Call, rule: Rule, record: CallRecord) -> tuple[Flow, ...]:
        with _rule_named(rule, call, record):
            returned = rule(call)
        flows = returned if isinstance(returned, tuple) else (returned,)
        check_flows(flows, call, rule)
        return flows

    def _value(self, call: CallRecord, flow: Flow, index: int) -> Value | None:
        if isinstance(flow, Constant):
            return None
        if isinstance(flow, Weights):
            return self._weights(call, flow)
        summands = self._summands(call, flow)
        return self._labelled_value(LabelField(call.name, index), call, flow, summands)

    def _labelled_value(
        self, target: LabelField, call: CallRecord, flow: Flow, summands: int
    ) -> Value:
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
            source=ValueRef(call.name),
            facts=flow.output_facts,
            summands=summands,
            as_weights=self._weights(call, flow.as_weights) if flow.as_weights else None,
        )

    def _weights(self, call: CallRecord, flow: Weights) -> Value:
        return Value(
            layout=simplify(flow.layout),
            field=None,
            source=self._source(call, flow),
            facts=flow.output_facts,
        )

    def _source(self, call: CallRecord, flow: Weights) -> TensorSource:
        """What labels read in the place of these weights: without the dropout before them."""
        substitutes = {
            other: value.source
            for other in self._inputs(call)
            if (value := self._first_value(other)) is not None
            and value.field is None
            and value.source != ValueRef(other)
        }
        if flow.before_dropout is not None:
            other = _name_at(call, flow.before_dropout.path)
            return substitutes.get(other, ValueRef(other))
        return Recomputed(call.name, substitutes) if substitutes else ValueRef(call.name)

    # Sums.

    def _merge_residual_sum(self, call: CallRecord, flow: Flow) -> Flow:
        """A sum of sums whose parts nobody else reads is one sum (contract, point 6)."""
        if isinstance(flow, Weights) and flow.before_dropout is not None and call.overwritten:
            reason = "dropout in place: the probabilities before it are gone"
            return replace(flow, before_dropout=None, approximation=reason)
        if not isinstance(flow, Average) or flow.operation is not Operation.RESIDUAL:
            return flow
        shares = tuple(
            share * self._summand_count(_name_at(call, labels.operand.path))
            for labels, share in zip(flow.sources, flow.shares, strict=True)
        )
        return replace(flow, shares=shares)

    def _summand_count(self, name: str) -> int:
        """The number of streams that a call adds to a sum."""
        value = self._first_value(name)
        if value is None or value.summands == 1 or len(self._readers(name)) > 1:
            return 1
        if name in self.nodes:
            self.nodes[name] = replace(self.nodes[name], operation=Operation.PARTIAL_SUM)
        return value.summands

    def _readers(self, name: str) -> list[str]:
        """The calls that read the values of a call's result, and not just its sizes."""
        users = self.calls[name].users
        return [user for user in users if not self.calls[user].reads_sizes_only]

    def _summands(self, call: CallRecord, flow: Flow) -> int:
        if flow.operation is not Operation.RESIDUAL:
            return 1
        return sum(self._summand_count(other) for other in self._inputs(call))

    # Writing in place.

    def _write(self, call: CallRecord, values: Values) -> None:
        """An operator that writes to an argument: later reads of that tensor see the result.

        Raises:
            LayoutError: another view of the same memory is read later, with a label that this
                write has made untrue.
        """
        if call.written is None or not values:
            return
        if _same_label(self._first_value(call.written), values[0]):
            return
        written = self.calls[call.written].tensor
        views = self.storages.get(written.storage, []) if written is not None else []
        for view in views:
            if view.name in (call.written, call.name):
                continue
            assert view.tensor is not None
            assert written is not None
            if view.tensor.is_same_view(written):
                self.values[view.name] = values
            elif any(self.calls[user].index > call.index for user in view.users):
                raise LayoutError(
                    f"it writes in place to {call.written}, and {view.name}, a view of the same "
                    "memory, is read later; write to a fresh tensor instead"
                )
        self.values[call.written] = values

    # Results.

    def _output(self, leaf: Any) -> Value | None:
        if not isinstance(leaf, ValueRef) or isinstance(self.values.get(leaf.name), Failed):
            return None
        self._read_label(leaf.name)
        return self._first_value(leaf.name)

    def _read_label(self, name: str) -> None:
        """Something reads the label of a call: an error if its positions are not known."""
        value = self.values.get(name)
        if isinstance(value, PositionsUnknown):
            self._report(value.problems)

    def _record(
        self, call: CallRecord, flow: Flow, read: tuple[str, ...], values: Values = ()
    ) -> None:
        first = values[0] if values else None
        self.nodes[call.name] = TracedNode(
            name=call.name,
            operator=call.operator,
            operation=flow.operation,
            location=call.location,
            layout=first.layout if first else None,
            labelled=first is not None and first.field is not None,
            inputs=tuple(self._producer(other) for other in read),
            approximation=flow.approximation,
        )

    def _producer(self, name: str) -> str:
        """The operator behind a call that picks one of several outputs."""
        while self.calls[name].kind is CallKind.ITEM:
            name = self.calls[name].arguments["source"].name
        return name

    def _unknown(self, call: CallRecord) -> None:
        tensors = (self.calls[other].tensor for other in call.inputs)
        operands = tuple(tensor.shape for tensor in tensors if tensor is not None)
        self.unknown.append(Unknown(call, operands, self._unknown_call(call)))
        self._poison(call)

    def _unknown_call(self, call: CallRecord) -> UnknownCall:
        """The call, with the operand whose label it most likely moves."""
        outputs = self._output_shapes(call)
        found = [
            (not self._may_carry_labels(name), tensor.shape, path, name)
            for path, name in _values_in(call.arguments)
            if self._comes_from_image(name) and (tensor := self.calls[name].tensor) is not None
        ]
        found.sort(key=lambda candidate: (candidate[0], candidate[1] not in outputs))
        _, shape, path, source = found[0]
        return UnknownCall(
            operator=call.operator,
            arguments=tuple(call.arguments),
            source=path,
            shape=shape,
            channels=self._channels(source, shape),
            outputs=outputs,
        )

    def _may_carry_labels(self, name: str) -> bool:
        if isinstance(self.values[name], (Failed, PositionsUnknown)):
            return True
        value = self._first_value(name)
        return value is not None and value.field is not None

    def _channels(self, name: str, shape: Shape) -> tuple[int, ...]:
        """The axes of a tensor without positions; those of the input where it is not known."""
        value = None if isinstance(self.values[name], Failed) else self._first_value(name)
        if value is not None:
            axes = value.layout.axes
            return tuple(dim for dim, axis in enumerate(axes) if not has_positions(axis))
        return (self.calls.channel_dim,) if len(shape) == len(self.input_layout.axes) else ()

    def _problem(self, call: CallRecord, message: str) -> None:
        self._poison(call)
        self.problems.append(Problem(call, call.operator, message))

    def _report(self, problems: Iterable[Problem]) -> None:
        self.problems.extend(problem for problem in problems if problem not in self.problems)

    def _poison(self, call: CallRecord) -> None:
        """Nothing is known of what a call computes or writes, nor of all that reads it later."""
        self.values[call.name] = Failed()
        if call.written is not None:
            self.values[call.written] = Failed()

    def raise_problems(self) -> None:
        """Raise one error that names every call that could not be traced."""
        self.problems.sort(key=lambda problem: problem.call.index)
        if self.problems or self.unknown:
            merged = {name: region.last.name for name, region in self.regions.items()}
            steps = CallGraph(self.calls, merged)
            raise problems_error(self.problems, self.unknown, steps)

    def _labelled(self) -> Iterator[tuple[str, Value]]:
        for call in self.calls:
            values = self.values.get(call.name)
            if isinstance(values, tuple) and values and values[0] and values[0].field:
                yield call.name, values[0]

    def trace(self, capture: Capture) -> Trace:
        """The finished trace."""
        return Trace(
            nodes=tuple(self.nodes.values()),
            capture=capture,
            calls=self.calls,
            steps=self.steps,
            outputs=self.outputs,
            labelled=dict(self._labelled()),
            input_field=LabelField(self.calls.traced_input),
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


def _same_label(before: Value | None, after: Value | None) -> bool:
    """Whether a write leaves the label as it was; weights are read from memory as they stand."""
    if before is None or after is None:
        return before is after
    if before.field is None and after.field is None:
        return factor_kinds(before.layout) == factor_kinds(after.layout)
    return (before.field, before.layout) == (after.field, after.layout)


def _name_at(call: CallRecord, path: tuple[str | int, ...]) -> str:
    """The name of the call whose result is the argument at a path."""
    value: Any = call.arguments
    for key in path:
        value = value[key]
    assert isinstance(value, ValueRef)
    return value.name


def _values_in(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The results of calls among arguments: the path as a rule writes it, and the call's name."""
    if isinstance(value, ValueRef):
        yield path, value.name
    elif isinstance(value, (Mapping, tuple)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            place = f'["{key}"]' if isinstance(key, str) else f"[{key}]"
            yield from _values_in(item, path + place)


@contextlib.contextmanager
def _rule_named(rule: Rule, call: Call, record: CallRecord) -> Iterator[None]:
    """An error in a rule's own code leaves with a note of the rule and of the call it was given."""
    try:
        yield
    except LayoutError:
        raise  # said on purpose; reported with all the others
    except Exception as error:
        error.add_note(
            f"raised in the rule {rule_name(rule)} for {record.name} = {call.operator}, "
            f"with the arguments {', '.join(call.arguments)} -> "
            f"{', '.join(map(shape_text, call.outputs))}\n  in {record.location}"
        )
        raise
