"""Recurrent layers: LSTM, GRU and RNN mix positions along the axis of steps.

How far back a step reaches depends on gates, computed from the data. The label assumes that
a layer remembers all steps that it has read equally (contract, point 11).
"""

from collections.abc import Sequence
from dataclasses import replace

from labeltrace.errors import LayoutError
from labeltrace.flow import FinalStates, Flow, LabelView, Operand, Operation, Recur
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    Size,
    arrange,
    axis_size,
    axis_text,
    channel,
    has_positions,
    positions,
    pure_positions,
    renumbered,
)
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.aggregation import aggregation
from labeltrace.rule_helpers.elementwise import relayout
from labeltrace.rule_helpers.output_facts import after_nonlinear

REMEMBERED = (
    "what a recurrent layer remembers depends on the data: all positions that it has read count "
    "alike"
)


@register_rule("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")
def recurrent(call: Call) -> tuple[Flow, ...]:
    """The output of every step, and the final state of every layer and direction."""
    source: Operand = call["input"]
    if len(call.traced) > 1 or source.is_weights:
        raise LayoutError(
            f"{call.operator} can be followed where its input has labels and its first state and "
            f"parameters are constants: {source.layout}"
        )
    place = 1 if call["batch_first"] else 0
    steps, batch, features = (source.traced_layout.axes[dim] for dim in (place, 1 - place, 2))
    if any(factor.kind is Kind.BATCH for factor in steps):
        raise LayoutError(
            f"{call.operator} runs along the batch, from image to image: {source.layout}; give it "
            "batch_first=True if the batch comes first"
        )
    is_gate = call.operator != "aten.rnn_relu.input"
    shapes = (call.output, *call.outputs[1:])
    ends = [_final_states(call, source, shape, (steps, batch, features)) for shape in shapes[1:]]
    first = _outputs(call, source, (steps, batch, features))
    gates = (is_gate, is_gate, False)  # a cell's state, the last one, is no gate
    flows = zip((first, *ends), gates, strict=False)
    return tuple(after_nonlinear(flow, is_gate=gate) for flow, gate in flows)


def _outputs(call: Call, source: Operand, axes: tuple[Axis, Axis, Axis]) -> Flow:
    """Every step mixes the steps before it; if all steps have one label, nothing is mixed."""
    steps, batch, features = axes
    first = [batch, steps] if call["batch_first"] else [steps, batch]
    if not has_positions(steps):
        return _averaged(source, [*first, channel(call.output[2])], [features])
    if not pure_positions(steps):
        raise LayoutError(f"the steps of {call.operator} are not positions: {axis_text(steps)}")
    first[call["batch_first"]] = (Factor(axis_size(steps), Kind.POSITION),)
    labels, dim = _labels(call, source, axes)
    return Recur(
        layout=renumbered([*first, channel(call.output[2])]),
        source=labels,
        dim=dim,
        layers=call["num_layers"],
        bidirectional=call["bidirectional"],
        feature_dims=len(positions(features)),
        approximation=REMEMBERED,
    )


def _final_states(
    call: Call, source: Operand, shape: Sequence[Size], axes: tuple[Axis, Axis, Axis]
) -> Flow:
    """(layers * directions, N, H): a layer has read all outputs of the layer below it."""
    steps, batch, features = axes
    count, _, width = shape
    if call["num_layers"] == 1 or not has_positions(steps):
        return _averaged(source, [channel(count), batch, channel(width)], [steps, features])
    labels, dim = _labels(call, source, axes)
    return FinalStates(
        layout=renumbered([(Factor(count, Kind.POSITION),), batch, channel(width)]),
        source=labels,
        dim=dim,
        layers=call["num_layers"],
        bidirectional=call["bidirectional"],
        feature_dims=len(positions(features)),
        approximation=REMEMBERED,
    )


def _averaged(source: Operand, kept: list[Axis], reduced: list[Axis]) -> Flow:
    """The label on the axes `kept`: the mean over the positions of the axes `reduced`."""
    if not any(has_positions(axis) for axis in reduced):
        layout = Layout(tuple(kept))
        return relayout(source, layout, operation=Operation.CHANNEL_MIXING)
    flow = aggregation(source, renumbered(kept), kept, reduced)
    return replace(flow, approximation=REMEMBERED)


def _labels(call: Call, source: Operand, axes: tuple[Axis, Axis, Axis]) -> tuple[LabelView, int]:
    """The field with one dimension of steps, and which one this is; features are the last ones."""
    steps, batch, features = axes
    groups: list[tuple[Factor, ...]] = [
        (factor,) for axis in (batch, features) for factor in positions(axis)
    ]
    dim = len(positions(batch)) if call["batch_first"] else 0
    groups.insert(dim, positions(steps))
    return LabelView(source, arrange(source.traced_layout, groups)), dim
