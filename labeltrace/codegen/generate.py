"""Generation: one module that runs the forward nodes and, between them, the label steps."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.fx import Graph, GraphModule, Node

from labeltrace import label_ops
from labeltrace.capture.node_info import location
from labeltrace.codegen.batch_sizes import BatchSizes
from labeltrace.codegen.checkpointing import with_checkpoints
from labeltrace.codegen.forward_tensors import ForwardTensors
from labeltrace.codegen.instructions import Instruction, instruction, reads_prior
from labeltrace.codegen.label_calls import LabelCalls
from labeltrace.codegen.label_fields import LabelFields
from labeltrace.codegen.listing import label_code
from labeltrace.codegen.output_labels import output_label
from labeltrace.codegen.prior_fields import PriorFields
from labeltrace.codegen.scheduling import run_early
from labeltrace.flow import Attend, LabelField, LabelStep, LabelView, Operand
from labeltrace.layout import BatchSize
from labeltrace.rewrites import needed_fields, simplify_steps
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.values import Value

LABELS_INPUT = "labels"


@dataclass(frozen=True, slots=True)
class Generated:
    """The generated module and its label half as text.

    Attributes:
        module: takes the placeholders of the captured graph and the label image, and returns the
            leaves of the model's output followed by their labels (None where an output has none).
        label_code: the label half as a Python function, see `labeltrace.codegen.listing`.
    """

    module: GraphModule
    label_code: str


def generate(trace: Trace, rewrite: Callable[[Trace], Trace] = simplify_steps) -> Generated:
    """Add the label steps that some output needs to the forward nodes.

    Args:
        trace: the captured graph and its label steps.
        rewrite: simplifies the label steps first.

    Raises:
        LayoutError: a field has the dynamic batch in two dimensions, or an output's positions are
            repeated in ways that have no label of the output's shape.
    """
    return _Generator(rewrite(trace)).generate()


class _Generator:
    """One generation: walks the captured graph once, from the first node to the last."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.graph = Graph()
        self.calls = LabelCalls(self.graph)
        self.forward = ForwardTensors(trace.capture.graph, self.graph, self.calls)
        self.fields = LabelFields(self.calls)
        self.joint_calls: set[Node] = set()  # label nodes that compute a model's output as well
        self.priors = PriorFields(self._run, trace.steps)
        outputs = frozenset(value.field for value in trace.outputs if value and value.field)
        self.needed = needed_fields(trace.steps, outputs)

    def generate(self) -> Generated:
        labels: Node | None = None
        for node in self.trace.capture.graph.nodes:
            if node.op != "placeholder" and labels is None:
                labels = self.graph.placeholder(LABELS_INPUT)
                self.sizes = BatchSizes(self.calls, labels)
                self._read_image(labels)
            if node.op == "output":
                self._write_outputs(node)
                continue
            self.calls.module_path = location(node).module_path
            self._forward_node(node)
            self._label_steps(node)
        self.calls.eliminate_unused()
        assert labels is not None
        notes = self.calls.notes
        text = label_code(self.graph, labels, notes, len(self.trace.outputs))  # in model order
        label_nodes = notes.keys() - self.joint_calls
        run_early(self.graph, labels, label_nodes)
        self.graph.lint()
        capture = self.trace.capture
        flat = GraphModule(capture.root, self.graph, class_name="LabeledGraph")
        state = {entry.placeholder for entry in capture.state}
        module = with_checkpoints(flat, label_nodes, state, capture.checkpoints)
        return Generated(module, text)

    # Inputs and outputs.

    def _read_image(self, labels: Node) -> None:
        if not self.needed:
            return
        sizes = self.trace.input_layout.field_sizes
        self.calls.module_path = f"the label image of {self.trace.input_field.node}"
        field = self.calls.call(label_ops.read_image, (labels, list(sizes[1:])))
        self.fields.register_field(self.trace.input_field, field, sizes)
        steps = [self.trace.steps[f] for f in self.needed if f in self.trace.steps]
        if any(reads_prior(step) for step in steps):
            prior = self.calls.call(label_ops.prior_of, (field,), name="prior")
            self.priors.register_image(self.trace.input_field, prior, sizes)

    def _write_outputs(self, node: Node) -> None:
        self.calls.module_path = "output"
        leaves: Any = node.args[0]
        copy_of = self.forward.copy_of
        outputs = [copy_of(leaf) if isinstance(leaf, Node) else leaf for leaf in leaves]
        labels = [self._output_label(value) for value in self.trace.outputs]
        self.graph.output((*outputs, *labels))

    def _output_label(self, value: Value | None) -> Node | None:
        if value is None or value.field is None:
            return None
        plan = output_label(value.layout)
        field = self.fields.arranged(value.field, plan.arrangement)
        if plan.averaged:
            field = self.calls.call(label_ops.aggregate, (field, plan.averaged))
        for one in plan.repetitions:
            field = self._run(
                Instruction(label_ops.repeat, (field, list(one.counts), one.interleave))
            )
        if plan.is_field:
            return field
        arguments = (field, list(plan.sizes), plan.class_dim)
        return self._run(Instruction(label_ops.write_output, arguments))

    # Nodes.

    def _forward_node(self, node: Node) -> None:
        """Copy a node, or call what computes its output together with labels."""
        for field in self.trace.fields_of(node.name):
            step = self.trace.steps[field]
            if field in self.needed and isinstance(step, Attend) and step.joint:
                self._joint_attention(node, field, step)
                return
        self.forward.copy(node)

    def _joint_attention(self, node: Node, field: LabelField, step: Attend) -> None:
        planned = instruction(step)
        assert isinstance(planned, Instruction)
        joint = self._run(planned, "joint")
        self.joint_calls.add(joint)
        output = self.graph.create_node(
            "call_function", operator.getitem, (joint, 0), name=node.name
        )
        self.forward.register_copy(node, output)
        labels = self.calls.call(operator.getitem, (joint, 1))
        self.fields.register_field(field, labels, step.field_sizes)

    def _label_steps(self, node: Node) -> None:
        for field in self.trace.fields_of(node.name):
            if field in self.needed and field not in self.fields:
                step = self.trace.steps[field]
                self.fields.register_field(field, self._step(step), step.field_sizes)

    # Instructions.

    def _step(self, step: LabelStep) -> Node:
        planned = self.priors.instruction(step)
        if isinstance(planned, LabelView):
            return self._labels(planned)
        return self._run(planned)

    def _run(self, planned: Instruction, name: str = "y") -> Node:
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
                return self.sizes.node(argument)
            case Instruction():
                return self._run(argument, "weights")
            case list():
                return [self._resolve(item) for item in argument]
        return argument

    def _labels(self, labels: LabelView) -> Node:
        return self.fields.arranged(labels.field, labels.arrangement)
