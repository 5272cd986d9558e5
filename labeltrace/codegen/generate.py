"""Generation: one module that runs the forward nodes and, between them, the label steps."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.fx import Graph, GraphModule, Node

from labeltrace.codegen.checkpointing import with_checkpoints
from labeltrace.codegen.forward_tensors import ForwardTensors
from labeltrace.codegen.instructions import Instruction, instruction
from labeltrace.codegen.label_calls import LabelCalls
from labeltrace.codegen.label_graph_writer import LABELS_INPUT, LabelGraphWriter
from labeltrace.codegen.listing import label_code
from labeltrace.codegen.scheduling import run_early
from labeltrace.flow import Attend, LabelField
from labeltrace.rewrites import simplify_steps
from labeltrace.tracing.trace import Trace


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


class _Generator(LabelGraphWriter):
    """One generation: walks the captured graph once, from the first node to the last."""

    def __init__(self, trace: Trace) -> None:
        graph = Graph()
        super().__init__(trace, graph, ForwardTensors(trace.capture.graph, LabelCalls(graph)))
        self._joint_calls: set[Node] = set()  # label nodes that compute a model's output as well

    def generate(self) -> Generated:
        labels: Node | None = None
        for node in self.trace.capture.graph.nodes:
            if node.op != "placeholder" and labels is None:
                labels = self.graph.placeholder(LABELS_INPUT)
                self.read_image(labels)
            if node.op == "output":
                self._write_outputs(node)
                continue
            self.note_place(node)
            self._forward_node(node)
            self.label_steps(node)
        self.calls.eliminate_unused()
        assert labels is not None
        notes = self.calls.notes
        text = label_code(self.graph, labels, notes, len(self.trace.outputs))  # in model order
        label_nodes = notes.keys() - self._joint_calls
        run_early(self.graph, labels, label_nodes)
        self.graph.lint()
        capture = self.trace.capture
        flat = GraphModule(capture.root, self.graph, class_name="LabeledGraph")
        state = {entry.placeholder for entry in capture.state}
        module = with_checkpoints(flat, label_nodes, state, capture.checkpoints)
        return Generated(module, text)

    def _write_outputs(self, node: Node) -> None:
        leaves: Any = node.args[0]
        copy_of = self.forward.copy_of
        outputs = [copy_of(leaf) if isinstance(leaf, Node) else leaf for leaf in leaves]
        self.graph.output((*outputs, *self.output_labels()))

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
        joint = self.run(planned, "joint")
        self._joint_calls.add(joint)
        output = self.graph.create_node(
            "call_function", operator.getitem, (joint, 0), name=node.name
        )
        self.forward.register_copy(node, output)
        labels = self.calls.call(operator.getitem, (joint, 1))
        self.fields.register_field(field, labels, step.field_sizes)
