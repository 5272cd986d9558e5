"""Mixing weights that end as content: the label of what was contracted (contract, point 10).

Weights move labels and have none. A matrix of similarities that a model classifies or returns is
content nevertheless. Where it came from is known: every product of two streams keeps them
(`labeltrace.flow.ContractedStreams`). So the calls between those streams and an output are read a
second time, and this time their results carry labels: the mean over the positions that a product
contracts, of both its streams. What has a label already keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod

from labeltrace.capture.call_records import CallKind, CallRecord
from labeltrace.errors import LayoutError
from labeltrace.flow import (
    ContractedStreams,
    Flow,
    LabelField,
    Operand,
    Operation,
    ValueRef,
    Weights,
)
from labeltrace.layout import Layout, has_positions, renumbered, simplify
from labeltrace.rule_api.call import Shape
from labeltrace.rule_api.registry import Registry
from labeltrace.rule_helpers.aggregation import aggregation
from labeltrace.rule_helpers.elementwise import combine, relayout, with_layout
from labeltrace.tracing.apply import apply_rule
from labeltrace.tracing.environment import Environment
from labeltrace.tracing.in_place import values_changed
from labeltrace.tracing.operands import operator_call, output_shapes
from labeltrace.tracing.output_values import operator_values
from labeltrace.tracing.traced_node import TracedNode, traced_node
from labeltrace.tracing.values import PositionsUnknown, Traced, Value
from labeltrace.tracing.written_views import WrittenViews

JOINING = frozenset(
    {
        "aten.add",
        "aten.cat",
        "aten.concat",
        "aten.concatenate",
        "aten.hstack",
        "aten.rsub",
        "aten.stack",
        "aten.sub",
        "aten.vstack",
    }
)
"""Operators that put a value beside streams or add it to them. In a product it might move them."""


class ContentReading:
    """The second reading of weights, in an environment of its own.

    Attributes:
        nodes: the nodes of the calls that were read again, by name.
    """

    def __init__(self, environment: Environment, registry: Registry) -> None:
        self._first = environment
        self._second = environment.second_reading()
        self._registry = registry
        self._written_views = WrittenViews()
        self.nodes: dict[str, TracedNode] = {}

    def value(self, name: str) -> Value | None:
        """What is known of a call's first result if it is read as content; None if it is none.

        Raises:
            LayoutError: the positions cannot be followed in this reading either.
        """
        for record in self._weights_before(name):
            if record.name not in self.nodes:
                self._read(record)
        value = self._second.value(name)
        return value if value is not None and value.field is not None else None

    def content_alone(self) -> frozenset[str]:
        """The calls read again whose results nobody reads as weights."""
        calls = self._first.calls
        found: set[str] = set()
        for record in sorted(map(calls.__getitem__, self.nodes), key=lambda call: -call.index):
            users = (calls[user] for user in record.users)
            readers = [user for user in users if not user.reads_sizes_only]
            ends = (user.kind is CallKind.OUTPUT or user.name in found for user in readers)
            if all(ends) and not record.overwritten:
                found.add(record.name)
        return frozenset(found)

    def state(self, name: str) -> Traced:
        """The results of a call that was read again."""
        state = self._second.state(name)
        assert isinstance(state, Traced)
        return state

    def _weights_before(self, name: str) -> list[CallRecord]:
        """The calls without a label that a value was computed by, in their order."""
        calls = self._first.calls
        found: dict[str, CallRecord] = {}
        waiting = [name]
        while waiting:
            record = calls[waiting.pop()]
            if record.name not in found and self._has_no_label(record):
                found[record.name] = record
                waiting += record.inputs
        return sorted(found.values(), key=lambda call: call.index)

    def _has_no_label(self, record: CallRecord) -> bool:
        state = self._first.state(record.name)
        if isinstance(state, PositionsUnknown):
            return True
        if not isinstance(state, Traced) or state.first is None:
            return False
        return state.first.field is None

    def _read(self, record: CallRecord) -> None:
        if record.kind is CallKind.ITEM:
            self._read_item(record)
            return
        rule = self._registry.find(record.operator_names)
        if rule is None:
            raise LayoutError(f"{record.operator} has no rule")
        call = operator_call(record, self._second)
        applied = apply_rule(record, rule, call, self._second)
        shapes = output_shapes(record, self._first.calls)
        flows = tuple(
            self._as_content(flow, record, shape)
            for flow, shape in zip(applied.flows, shapes, strict=False)
        )
        values = operator_values(flows, record, self._second)
        self._check_not_moved(record, values[0])
        changed = values_changed(record, values[0], self._second, self._written_views)
        for name, value in changed.items():
            self._second.assign(name, Traced((value,)))
        self._second.assign(record.name, Traced(values))
        read = self._first.inputs_from_image(record)
        node = traced_node(record, flows[0], values[0], read, self._first.calls)
        self.nodes[record.name] = node

    def _check_not_moved(self, record: CallRecord, after: Value | None) -> None:
        """Check that no stream takes part in a step that content cannot move.

        What queries do with keys times values is no second-order pooling: they would choose.

        Raises:
            LayoutError: a stream is multiplied with the content that has positions or channels
                which the content has not.
        """
        read = [name for name in record.inputs if self._second.comes_from_image(name)]
        content = [name for name in read if name in self.nodes]
        if len(content) in (0, len(read)) or record.operator in JOINING:
            return
        before = [value for name in content if (value := self._second.value(name)) is not None]
        if after is None or not any(_same_extent(value, after) for value in before):
            raise LayoutError(
                f"{record.name} = {record.operator} multiplies them with a stream that has other "
                "positions or channels"
            )

    def _read_item(self, record: CallRecord) -> None:
        value = self.state(record.arguments["source"].name).values[record.arguments["index"]]
        moved = value and replace(value, source=ValueRef(record.name))
        self._second.assign(record.name, Traced((moved,)))

    def _as_content(self, flow: Flow, record: CallRecord, output: Shape) -> Flow:
        if not isinstance(flow, Weights) or flow.contracted is None:
            return flow
        return self._contraction(flow.contracted, record, output)

    def _contraction(self, streams: ContractedStreams, record: CallRecord, output: Shape) -> Flow:
        """The mean label of the streams, over the positions that are contracted."""
        sides = list(self._aggregated(streams, record))
        aggregates = any(side.field not in _fields(streams) for side in sides)
        operation = Operation.SPATIAL_AGGREGATION if aggregates else Operation.CHANNEL_MIXING
        if len(sides) == 1:
            return relayout(sides[0], sides[0].traced_layout, operation=Operation.POINTWISE)
        flow = combine(sides, output, operation=operation)
        return replace(flow, facts=flow.output_facts.with_origins(()))

    def _aggregated(self, streams: ContractedStreams, record: CallRecord) -> Iterable[Operand]:
        """Each stream on the axes of the result, with the positions of all others averaged."""
        for index, side in enumerate(streams.sides):
            kept = [side.axes.get(letter, ()) for letter in streams.result]
            gone = [axis for letter, axis in side.axes.items() if letter not in streams.result]
            if not any(map(has_positions, gone)):
                yield with_layout(side.operand, Layout(tuple(kept)))
                continue
            step = aggregation(side.operand, renumbered(kept), kept, gone)
            field = self._second.field_of(step, LabelField(record.name, 1 + index))
            moved = with_layout(side.operand, simplify(step.layout))
            yield replace(moved, field=field)


def _same_extent(before: Value, after: Value) -> bool:
    """Whether a step left a value's shape and its positions as they were."""
    positions = prod(before.layout.field_sizes) == prod(after.layout.field_sizes)
    return positions and before.layout.shape == after.layout.shape


def _fields(streams: ContractedStreams) -> set[LabelField | None]:
    return {side.operand.field for side in streams.sides}
