"""Generation: from flows to one module that runs forward and label nodes side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from labeltrace import label_ops
from labeltrace.errors import LayoutError
from labeltrace.flow import Labels, Operand, Step
from labeltrace.instructions import Prior, instruction, reads_prior
from labeltrace.layout import (
    BATCH,
    Arrangement,
    Axis,
    Factor,
    Layout,
    arrange,
    axis_size,
    axis_text,
    has_channels,
    has_positions,
    is_dynamic,
    positions,
)
from labeltrace.reading import location
from labeltrace.tracing import Field, Replay, Trace, Value

LABELS_INPUT = "labels"


@dataclass(frozen=True, slots=True)
class Generated:
    """The generated module and its label half as text.

    ``module`` takes the placeholders of the captured graph and the label image, and returns the
    leaves of the model's output followed by their labels (None where an output has none).
    """

    module: GraphModule
    label_code: str


def generate(trace: Trace) -> Generated:
    """Put the label steps that some output needs beside the forward nodes.

    Raises:
        LayoutError: a field has the dynamic batch in two dimensions, or an output's positions are
            repeated in ways that have no label of the output's shape.
    """
    return _Generator(trace).generate()


class _Generator:
    """The state of one generation; made for :func:`generate` alone."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.graph = Graph()
        self.copies: dict[Node, Node] = {}
        self.fields: dict[Field, Node] = {}
        self.shapes: dict[Node, tuple[int, ...]] = {}
        self.arranged: dict[tuple[Node, Arrangement], Node] = {}
        self.replays: dict[Replay, Node] = {}
        self.notes: dict[Node, str] = {}
        self.prior: Node | None = None
        self.module_path = ""
        self.needed = _needed_fields(trace)

    def generate(self) -> Generated:
        labels: Node | None = None
        for node in self.trace.capture.graph.nodes:
            if node.op != "placeholder" and labels is None:
                labels = self.graph.placeholder(LABELS_INPUT)
                self._read_image(labels)
            if node.op == "output":
                self._output(node)
                continue
            self.copies[node] = self.graph.node_copy(node, self.copies.__getitem__)
            self._label_steps(node)
        self.graph.lint()
        module = GraphModule(self.trace.capture.root, self.graph, class_name="LabelledGraph")
        return Generated(module, self._label_code())

    # Ends.

    def _read_image(self, labels: Node) -> None:
        if not self.needed:
            return
        sizes = self.trace.input_layout.field_sizes
        self.module_path = f"the label image of {self.trace.input_field.node}"
        field = self._call(label_ops.read_image, (labels, list(sizes[1:])))
        self.shapes[field] = sizes
        self.fields[self.trace.input_field] = field
        steps = [self.trace.steps[f] for f in self.needed if f in self.trace.steps]
        if any(reads_prior(step) for step in steps):
            self.prior = self._call(label_ops.prior, (field,), name="prior")

    def _output(self, node: Node) -> None:
        self.module_path = "output"
        leaves: Any = node.args[0]
        outputs = [self.copies[leaf] if isinstance(leaf, Node) else leaf for leaf in leaves]
        labels = [self._output_label(value) for value in self.trace.outputs]
        self.graph.output((*outputs, *labels))

    def _output_label(self, value: Value | None) -> Node | None:
        """The label of one output: K in the place of its class axis (contract, point 10)."""
        if value is None or value.field is None:
            return None
        layout = value.layout
        class_dim = class_axis(layout)
        groups: list[Sequence[Factor]] = []
        sizes: list[int] = []
        inside: list[Factor] = []
        for dim, axis in enumerate(layout.axes):
            if has_channels(axis):
                inside.extend(positions(axis))
            if dim != class_dim:
                groups.append(() if has_channels(axis) else positions(axis))
                sizes.append(-1 if groups[-1] else layout.shape[dim])
                if is_dynamic(sizes[-1]):
                    raise LayoutError(
                        f"an output repeats one label as often as the batch is large: {layout}"
                    )
        repeats = [repeats_of(axis) for d, axis in enumerate(layout.axes) if d != class_dim]
        groups += [(factor,) for factor in inside]
        field = self._arranged(self.fields[value.field], arrange(layout, groups))
        for each in (True, False):
            counts = [count if whole is each else 1 for count, whole in repeats]
            if any(count != 1 for count in counts):
                field = self._call(label_ops.repeat, (field, counts, each))
        if inside:  # positions inside the channel axis of an output: their mean
            field = self._call(label_ops.aggregate, (field, len(inside)))
        if class_dim == len(sizes) and all(size == -1 for size in sizes):
            return field
        return self._call(label_ops.write_output, (field, sizes, class_dim))

    # Steps.

    def _label_steps(self, node: Node) -> None:
        self.module_path = location(node).module_path
        for field in self.trace.fields_of(node.name):
            if field in self.needed:
                step = self.trace.steps[field]
                self.fields[field] = self._step(step)
                self.shapes[self.fields[field]] = step.field_sizes

    def _step(self, step: Step) -> Node:
        planned = instruction(step)
        if isinstance(planned, Labels):
            return self._labels(planned)
        arguments = tuple(self._resolve(argument) for argument in planned.arguments)
        settings = {name: self._resolve(value) for name, value in planned.settings.items()}
        return self._call(planned.function, arguments, settings)

    def _resolve(self, argument: Any) -> Any:
        """An argument of an instruction as a node of the graph."""
        match argument:
            case Labels():
                return self._labels(argument)
            case Operand():
                return self._source(argument.tensor)
            case Prior():
                return self.prior
            case list():
                return [self._resolve(item) for item in argument]
        return argument

    def _labels(self, labels: Labels) -> Node:
        field = labels.operand.field
        assert isinstance(field, Field)
        return self._arranged(self.fields[field], labels.arrangement)

    def _arranged(self, field: Node, arrangement: Arrangement) -> Node:
        """The field with other dimensions; the field itself where nothing changes."""
        key = (field, arrangement)
        if key not in self.arranged:
            self.arranged[key] = self._relayout(field, arrangement)
        return self.arranged[key]

    def _relayout(self, field: Node, arrangement: Arrangement) -> Node:
        stored = self.shapes[field]
        order = [slot for group in arrangement.groups for slot in group]
        target = arrangement.shape
        settings: dict[str, Any] = {}
        if order == sorted(order):
            if target == stored:
                return field
            settings["merge"] = _view_sizes(target)
        else:
            if arrangement.sizes != stored:
                settings["split"] = _view_sizes(arrangement.sizes)
            settings["order"] = order
            if target != tuple(arrangement.sizes[slot] for slot in order):
                settings["merge"] = _view_sizes(target)
        moved = self._call(label_ops.relayout, (field,), settings)
        self.shapes[moved] = target
        return moved

    def _source(self, source: object) -> Node:
        """A tensor in the new graph; mixing weights once more where dropout came between."""
        if isinstance(source, Node):
            return self.copies[source]
        assert isinstance(source, Replay)
        if source not in self.replays:
            inputs = {node: self._source(other) for node, other in source.substitutes.items()}
            self.replays[source] = self.graph.node_copy(
                source.node, lambda node: inputs[node] if node in inputs else self.copies[node]
            )
        return self.replays[source]

    def _call(
        self,
        function: Callable[..., Tensor],
        arguments: tuple[Any, ...],
        settings: dict[str, Any] | None = None,
        name: str = "y",
    ) -> Node:
        node = self.graph.create_node("call_function", function, arguments, settings, name=name)
        self.notes[node] = self.module_path
        return node

    # The label half as text.

    def _label_code(self) -> str:
        lines = [(_code(node), self.notes[node]) for node in self.graph.nodes if node in self.notes]
        width = min(max((len(code) for code, _ in lines), default=0), 92)
        text = [f"    {code:<{width}}  # {note}" if note else f"    {code}" for code, note in lines]
        output: Any = next(iter(reversed(self.graph.nodes))).args[0]
        returned = ", ".join(str(leaf) for leaf in output[len(output) - len(self.trace.outputs) :])
        return "\n".join([f"def label_graph({LABELS_INPUT}):", *text, f"    return {returned}"])


def class_axis(layout: Layout) -> int:
    """The axis of an output in whose place its label has the K sources.

    It is the last axis that has channels; where there is none, K is appended.
    """
    channels = [dim for dim, axis in enumerate(layout.axes) if has_channels(axis)]
    return channels[-1] if channels else len(layout.axes)


def repeats_of(axis: Axis) -> tuple[int, bool]:
    """How often the positions of an axis are repeated, and whether each by itself.

    Raises:
        LayoutError: repeated positions stand between others.
    """
    if not has_positions(axis):
        return 1, True
    first = next(index for index, factor in enumerate(axis) if factor.is_position)
    last = max(index for index, factor in enumerate(axis) if factor.is_position)
    before, after = (axis_size(part) for part in (axis[:first], axis[last + 1 :]))
    if has_channels(axis) or (before == 1 and after == 1):
        return 1, True
    if before != 1 and after != 1:
        raise LayoutError(
            f"positions are repeated in two ways along an output: {axis_text(axis)}; "
            "return it before these axes are joined to one"
        )
    return before * after, before == 1


def _needed_fields(trace: Trace) -> frozenset[Field]:
    """The fields that some output depends on, the input's included."""
    needed: set[Field] = set()
    queue: list[Any] = [value.field for value in trace.outputs if value and value.field]
    while queue:
        field = queue.pop()
        if field in needed:
            continue
        needed.add(field)
        if field in trace.steps:
            queue += [labels.operand.field for labels in trace.steps[field].labels]
    return frozenset(needed)


def _view_sizes(sizes: Sequence[int]) -> list[int]:
    """Sizes for a view: the dimension that holds a dynamic batch is left to be inferred."""
    dynamic = [size for size in sizes if size % BATCH == 0]
    if len(dynamic) > 1:
        raise LayoutError(
            "a dynamic batch stands in two dimensions of one label field: the model pairs every "
            "sample with every other; leave that step, a contrastive loss perhaps, out of the model"
        )
    return [-1 if size % BATCH == 0 else size for size in sizes]


def _code(node: Node) -> str:
    parts = [_text(argument) for argument in node.args]
    parts += [f"{key}={_text(value)}" for key, value in node.kwargs.items()]
    function: Any = node.target
    return f"{node.name} = {function.__name__}({', '.join(parts)})"


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return str(value) if isinstance(value, Node) else repr(value)
