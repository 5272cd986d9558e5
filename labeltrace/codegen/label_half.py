"""The label half alone: a module from the tensors of a run, and a label image, to labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import Graph, GraphModule, Node

from labeltrace.codegen.forward_tensors import ForwardTensors
from labeltrace.codegen.label_calls import LabelCalls
from labeltrace.codegen.label_graph_writer import LABELS_INPUT, LabelGraphWriter
from labeltrace.codegen.listing import label_code
from labeltrace.rewrites import simplify_separate_steps
from labeltrace.tracing.trace import Trace


@dataclass(frozen=True, slots=True)
class LabelHalf:
    """The label half of a trace.

    Attributes:
        module: takes the tensors that `reads` names and the label image, and returns a label for
            each leaf of the model's output, None for one that does not come from the image.
        reads: the names of the calls, parameters and inputs whose tensors it takes, in order.
        label_code: the same as text, see `labeltrace.codegen.listing`.
    """

    module: GraphModule
    reads: tuple[str, ...]
    label_code: str


def generate_label_half(trace: Trace) -> LabelHalf:
    """The label steps that some output needs, as a module of their own.

    Raises:
        LayoutError: as `labeltrace.codegen.generate.generate`.
    """
    return _LabelHalfWriter(simplify_separate_steps(trace)).write()


class _LabelHalfWriter(LabelGraphWriter):
    """Writes label steps only; what they read of the forward pass becomes placeholders."""

    def __init__(self, trace: Trace) -> None:
        calls = LabelCalls(Graph())
        self._image = calls.graph.placeholder(LABELS_INPUT)
        self._inputs = _ReadTensors(trace.capture.graph, calls, self._image)
        super().__init__(trace, calls.graph, self._inputs)

    def write(self) -> LabelHalf:
        self.read_image(self._image)
        for node in self.trace.capture.graph.nodes:
            if node.op == "output":
                self.graph.output(tuple(self.output_labels()))
            elif node.op != "placeholder":
                self.note_place(node)
                self.label_steps(node)
        self.calls.eliminate_unused()
        reads = self._inputs.reads()
        text = label_code(self.graph, self._image, self.calls.notes, len(self.trace.outputs))
        self.graph.lint()
        module = GraphModule(self.trace.capture.root, self.graph, class_name="LabelHalf")
        return LabelHalf(module, reads, text)


class _ReadTensors(ForwardTensors):
    """A placeholder for each tensor of the forward pass that a label step reads."""

    def __init__(self, captured: Graph, calls: LabelCalls, labels: Node) -> None:
        super().__init__(captured, calls)
        self._image = labels

    def copy_of(self, node: Node) -> Node:
        """The placeholder for the result of a node of the captured graph."""
        if node.name not in self._copies:
            with self._graph.inserting_before(self._image):
                self._copies[node.name] = self._graph.placeholder(node.name)
        return self._copies[node.name]

    def reads(self) -> tuple[str, ...]:
        """The names of the nodes whose results are read; placeholders without a reader go."""
        names: list[str] = []
        for name, copy in self._copies.items():
            if copy.users:
                names.append(name)
            else:
                self._graph.erase_node(copy)
        return tuple(names)
