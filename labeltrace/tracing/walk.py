"""The walk: one pass over the calls of a model that applies the rules."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from labeltrace.capture.call_records import CallKind, CallRecord, ModelCalls
from labeltrace.errors import LayoutError
from labeltrace.flow import NOTHING_KNOWN, Constant, Flow, LabelField, Operation, ValueRef
from labeltrace.layout import Layout, input_layout
from labeltrace.rule_api.call import Call, Rule
from labeltrace.rule_api.registry import Registry
from labeltrace.tracing.apply import apply_rule, run_rule
from labeltrace.tracing.content_reading import JOINING
from labeltrace.tracing.diagnostics import Diagnostics, reads_tensor, unknown_operator
from labeltrace.tracing.environment import Environment
from labeltrace.tracing.in_place import values_changed
from labeltrace.tracing.operands import operator_call, region_call
from labeltrace.tracing.output_values import operator_values, region_value, with_own_origin
from labeltrace.tracing.outputs import OutputReader
from labeltrace.tracing.problems import Problem
from labeltrace.tracing.regions import Region, find_regions
from labeltrace.tracing.residual_sums import mark_partial_sums
from labeltrace.tracing.sizes_of_values import SIZED_BY_VALUES, keeps_sizes_apart
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.traced_node import TracedNode, traced_node
from labeltrace.tracing.unknown_positions import (
    added_to_weights,
    gives_an_index,
    says_only_where,
)
from labeltrace.tracing.unknown_sizes import check_sizes_are_known
from labeltrace.tracing.values import Failed, PositionsUnknown, Traced, Value, ValueState
from labeltrace.tracing.written_views import WrittenViews

if TYPE_CHECKING:
    from labeltrace.capture.captured import Capture


def trace_calls(calls: ModelCalls, registry: Registry, capture: Capture) -> Trace:
    """Apply the rules to every call of a model.

    Args:
        calls: the records of the calls.
        registry: the rules.
        capture: what the records were read from; kept in the trace, not looked at.

    Raises:
        UnknownOperatorError: operators on the label's way have no rule; all of them are named.
        LayoutError: positions cannot be followed through some calls; all of them are named.
    """
    walk = _Walk(calls, registry)
    for call in calls:
        walk.visit(call)
    walk.diagnostics.raise_any(calls, walk.regions)
    return Trace(
        nodes=mark_partial_sums(walk.nodes, walk.partial_sums),
        capture=capture,
        calls=calls,
        steps=walk.environment.steps,
        outputs=walk.outputs,
        labeled=dict(_labeled(calls, walk.environment)),
        input_field=LabelField(calls.traced_input),
        input_layout=walk.input_layout,
    )


def _labeled(calls: ModelCalls, environment: Environment) -> Iterator[tuple[str, Value]]:
    """What is known of each call's first result, where that carries labels."""
    for call in calls:
        state = environment.state(call.name)
        if isinstance(state, Traced) and state.values and state.first and state.first.field:
            yield call.name, state.first


def _returns_numbers(record: CallRecord) -> bool:
    """Whether a call gives the model's Python code numbers, which carry no labels: `x.item()`."""
    return not record.tensors and not record.overwritten


class _Walk:
    """One walk: sends each call to where its kind is handled, and keeps a node of each."""

    def __init__(self, calls: ModelCalls, registry: Registry) -> None:
        self.registry = registry
        self.regions = find_regions(calls, registry)
        self.environment = Environment(calls)
        self.diagnostics = Diagnostics()
        self.nodes: list[TracedNode] = []
        self.partial_sums: set[str] = set()
        self.written_views = WrittenViews()
        self.unknown_items: dict[tuple[str, int], ValueState] = {}
        self.outputs: tuple[Value | None, ...] = ()
        self.input_layout = Layout(())

    def visit(self, record: CallRecord) -> None:
        """Take one call in."""
        if record.kind is CallKind.INPUT:
            self._visit_input(record)
        elif record.kind is CallKind.OUTPUT:
            self._visit_output(record)
        elif record.name in self.regions:
            self._visit_region(record, self.regions[record.name])
        elif record.kind is CallKind.ITEM:
            self._visit_item(record)
        else:
            self._visit_operator(record)
            self.environment.note_write(record)

    def _visit_input(self, record: CallRecord) -> None:
        calls = self.environment.calls
        if record.name != calls.traced_input:
            return
        assert record.tensor is not None
        self.input_layout = input_layout(record.tensor.shape, calls.channel_dim)
        facts = with_own_origin(NOTHING_KNOWN, record.name)
        value = Value(self.input_layout, LabelField(record.name), ValueRef(record.name), facts)
        self.environment.assign(record.name, Traced((value,)))

    def _visit_item(self, record: CallRecord) -> None:
        source = record.arguments["source"].name
        if not self.environment.comes_from_image(source):
            return
        state = self.environment.state(source)
        unknown = self.unknown_items.get((source, record.arguments["index"]))
        if unknown is not None:
            state = unknown
        elif isinstance(state, Traced):
            value = state.values[record.arguments["index"]]
            state = Traced((value and replace(value, source=ValueRef(record.name)),))
        self.environment.assign(record.name, state)

    def _visit_output(self, record: CallRecord) -> None:
        """Take the outputs, and show as content what nobody else takes for weights."""
        reader = OutputReader(self.environment, self.registry, self.diagnostics)
        self.outputs = tuple(reader.value(leaf) for leaf in record.arguments["leaves"])
        self.nodes = reader.with_content(self.nodes)

    # Operators.

    def _visit_operator(self, record: CallRecord) -> None:
        read = self.environment.inputs_from_image(record)
        rule = self.registry.find(record.operator_names)
        if not read or record.reads_sizes_only or _returns_numbers(record):
            self._add_node(record, Constant(), ())
        elif record.sized_by_values and not keeps_sizes_apart(
            record, rule, read, self.environment.calls
        ):
            self._stop_at_size(record, read)
        elif self.environment.states(read, Failed) and not reads_tensor(record, self.environment):
            self.environment.assign(record.name, Failed())  # a size of what failed before
        elif rule is None:
            unknown = unknown_operator(record, self.input_layout, self.environment)
            self.diagnostics.add_unknown(unknown)
            self.environment.fail(record)
        elif self.environment.states(read, Failed):
            self.environment.assign(record.name, Failed())
        else:
            self._follow(record, rule, read)

    def _stop_at_size(self, record: CallRecord, read: tuple[str, ...]) -> None:
        """A size that depends on values: an error at the first call that has it."""
        if not self.environment.states(read, Failed):
            self.diagnostics.add([Problem(record, record.operator, SIZED_BY_VALUES)])
        self.environment.fail(record)

    def _follow(self, record: CallRecord, rule: Rule, read: tuple[str, ...]) -> None:
        """Apply the rule to a call, all of whose inputs are known or have unknown positions."""
        call = operator_call(record, self.environment)
        unknown = self.environment.states(read, PositionsUnknown)
        if unknown:
            known = self._without_unknown(call, record, {*map(ValueRef, unknown)})
            if known is None:
                self._propagate_unknown(record, read, unknown)
                return
            call = known
        try:
            check_sizes_are_known(record, self.environment)
            self._apply(record, rule, call, read)
        except LayoutError as error:
            problem = Problem(record, record.operator, str(error))
            if record.written is None:
                self._mark_unknown(record, (problem,), read)
            else:
                self.environment.fail(record)
                self.diagnostics.add([problem])

    def _apply(self, record: CallRecord, rule: Rule, call: Call, read: tuple[str, ...]) -> None:
        applied = apply_rule(record, rule, call, self.environment)
        values = operator_values(applied.flows, record, self.environment)
        changed = values_changed(record, values[0], self.environment, self.written_views)
        for name, value in changed.items():
            self.environment.assign(name, Traced((value,)))
        self.environment.assign(record.name, Traced(values))
        self.partial_sums |= applied.partial_sums
        self._add_node(record, applied.flows[0], read, values)

    def _without_unknown(
        self, call: Call, record: CallRecord, unknown: set[ValueRef]
    ) -> Call | None:
        """The call with constants for what has unknown positions, where these do not matter."""
        if call.operator == "aten.broadcast_tensors" and call.traced:
            for index, ref in enumerate(record.arguments["tensors"]):
                if ref in unknown:  # each output comes of one operand
                    self.unknown_items[record.name, index] = self.environment.state(ref.name)
            return call
        if says_only_where(call, unknown):
            needs_no_label = record.written is not None or gives_an_index(call)
            return call if call.traced or needs_no_label else None
        without = added_to_weights(call, record.operator_names, unknown)
        return None if without is call else without

    def _propagate_unknown(
        self, record: CallRecord, read: tuple[str, ...], unknown: dict[str, PositionsUnknown]
    ) -> None:
        """A step of values with unknown positions alone gives such a value.

        So does a sum or a concatenation with others, which an output may still read as content.
        Other steps are errors.
        """
        problems = dict.fromkeys(p for state in unknown.values() for p in state.problems)
        joins = len(unknown) == len(read) or record.operator in JOINING
        if joins and (record.written is None or record.written in unknown):
            self._mark_unknown(record, tuple(problems), read)
        else:
            self.diagnostics.add(problems)
            self.environment.fail(record)

    def _mark_unknown(
        self, record: CallRecord, problems: tuple[Problem, ...], read: tuple[str, ...]
    ) -> None:
        self.environment.assign(record.name, PositionsUnknown(problems))
        self._add_node(record, Constant(operation=Operation.WEIGHTS), read)

    # Regions.

    def _visit_region(self, record: CallRecord, region: Region) -> None:
        """Apply the rule of a module or function once its last call is reached."""
        if record is not region.last or not region.outputs:
            return
        read = tuple(name for name in region.inputs if self.environment.comes_from_image(name))
        if not read:
            return
        if not all(isinstance(self.environment.state(name), Traced) for name in read):
            self._read_labels(read)
            self._fail_region(region)
            return
        try:
            self._apply_region(region, read)
        except LayoutError as error:
            self.diagnostics.add([Problem(region.last, region.name, str(error))])
            self._fail_region(region)

    def _apply_region(self, region: Region, read: tuple[str, ...]) -> None:
        flows = run_rule(region.rule, region_call(region, self.environment), region.last)
        values: list[Value | None] = []
        for index, (name, flow) in enumerate(zip(region.outputs, flows, strict=False)):
            value = region_value(flow, region, index, self.environment)
            self.environment.assign(name, Traced((value,)))
            values.append(value)
        self._add_node(region.last, flows[0], read, tuple(values), operator=region.name)

    def _fail_region(self, region: Region) -> None:
        for name in region.outputs:
            self.environment.assign(name, Failed())

    # What all have in common.

    def _read_labels(self, names: Collection[str]) -> None:
        """Something reads labels: an error where the positions are unknown."""
        self.diagnostics.add_unknown_positions(names, self.environment)

    def _add_node(
        self,
        record: CallRecord,
        flow: Flow,
        read: Collection[str],
        values: tuple[Value | None, ...] = (None,),
        operator: str = "",
    ) -> None:
        calls = self.environment.calls
        self.nodes.append(traced_node(record, flow, values[0], read, calls, operator))
