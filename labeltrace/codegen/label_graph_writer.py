"""What every generated graph has: the label steps that some output needs, each as a call."""

from __future__ import annotations

from typing import Any

from torch.fx import Graph, Node

from labeltrace import label_ops
from labeltrace.capture.node_info import location
from labeltrace.codegen.batch_sizes import BatchSizes
from labeltrace.codegen.forward_tensors import ForwardTensors
from labeltrace.codegen.instructions import Instruction, reads_prior
from labeltrace.codegen.label_fields import LabelFields
from labeltrace.codegen.output_labels import output_label
from labeltrace.codegen.prior_fields import PriorFields
from labeltrace.flow import LabelStep, LabelView, Operand
from labeltrace.layout import BatchSize
from labeltrace.rewrites import needed_fields
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.values import Value

LABELS_INPUT = "labels"
"""The name of the placeholder of the label image."""


class LabelGraphWriter:
    """Writes label steps into a graph.

    Attributes:
        trace: the trace whose steps are written.
        graph: the graph that is written.
        calls: the calls of label functions in it.
        fields: the nodes that compute label fields.
        forward: the tensors of the forward pass that label steps read.
        needed: the fields that some output depends on.
    """

    def __init__(self, trace: Trace, graph: Graph, forward: ForwardTensors) -> None:
        self.trace = trace
        self.graph = graph
        self.forward = forward
        self.calls = forward.calls
        self.fields = LabelFields(self.calls)
        self._priors = PriorFields(self.run, trace.steps)
        self._sizes: BatchSizes | None = None
        outputs = frozenset(value.field for value in trace.outputs if value and value.field)
        self.needed = needed_fields(trace.steps, outputs)

    # Inputs and outputs.

    def read_image(self, labels: Node) -> None:
        """Write the steps from the label image to the field of the input, and to the prior."""
        self._sizes = BatchSizes(self.calls, labels)
        if not self.needed:
            return
        sizes = self.trace.input_layout.field_sizes
        self.calls.module_path = f"the label image of {self.trace.input_field.node}"
        field = self.calls.call(label_ops.read_image, (labels, list(sizes[1:])))
        self.fields.register_field(self.trace.input_field, field, sizes)
        steps = [self.trace.steps[f] for f in self.needed if f in self.trace.steps]
        if any(reads_prior(step) for step in steps):
            prior = self.calls.call(label_ops.prior_of, (field,), name="prior")
            self._priors.register_image(self.trace.input_field, prior, sizes)

    def output_labels(self) -> list[Node | None]:
        """Write the steps from fields to the labels of the outputs."""
        self.calls.module_path = "output"
        return [self._output_label(value) for value in self.trace.outputs]

    def _output_label(self, value: Value | None) -> Node | None:
        if value is None or value.field is None:
            return None
        plan = output_label(value.layout)
        field = self.fields.arranged(value.field, plan.arrangement)
        if plan.averaged:
            field = self.calls.call(label_ops.aggregate, (field, plan.averaged))
        for one in plan.repetitions:
            arguments = (field, list(one.counts), one.interleave)
            field = self.run(Instruction(label_ops.repeat, arguments))
        if plan.is_field:
            return field
        settings = (field, list(plan.sizes), plan.class_dim)
        return self.run(Instruction(label_ops.write_output, settings))

    # Steps.

    def note_place(self, node: Node) -> None:
        """The next calls belong to the module of a node of the captured graph."""
        self.calls.module_path = location(node).module_path

    def label_steps(self, node: Node) -> None:
        """Write the label steps of a node of the captured graph."""
        for field in self.trace.fields_of(node.name):
            if field in self.needed and field not in self.fields:
                step = self.trace.steps[field]
                self.fields.register_field(field, self._step(step), step.field_sizes)

    def _step(self, step: LabelStep) -> Node:
        planned = self._priors.instruction(step)
        if isinstance(planned, LabelView):
            return self._labels(planned)
        return self.run(planned)

    def run(self, planned: Instruction, name: str = "y") -> Node:
        """Write the call of an instruction."""
        arguments = tuple(self._resolve(argument) for argument in planned.arguments)
        settings = {key: self._resolve(value) for key, value in planned.settings.items()}
        return self.calls.call(planned.function, arguments, settings, name)

    def _resolve(self, argument: Any) -> Any:
        """An argument of an instruction as a node of the graph."""
        match argument:
            case LabelView():
                return self._labels(argument)
            case Operand():
                return self.forward.read(argument.tensor)
            case BatchSize():
                assert self._sizes is not None  # set when the label image is read
                return self._sizes.node(argument)
            case Instruction():
                return self.run(argument, "weights")
            case list():
                return [self._resolve(item) for item in argument]
        return argument

    def _labels(self, labels: LabelView) -> Node:
        return self.fields.arranged(labels.field, labels.arrangement)
