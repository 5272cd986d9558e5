"""Generation: from flows to one module that runs forward and label nodes side by side."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Graph, GraphModule, Node

from labeltrace import label_ops
from labeltrace.capture.node_info import location
from labeltrace.codegen.checkpointing import with_checkpoints
from labeltrace.codegen.instructions import Instruction, Prior, instruction, reads_prior
from labeltrace.codegen.scheduling import run_early
from labeltrace.errors import LayoutError
from labeltrace.flow import (
    Attend,
    LabelField,
    LabelStep,
    LabelView,
    Operand,
    TensorSource,
    ValueRef,
)
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
from labeltrace.rewrites import Rows, needed_fields, simplify_steps
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.values import Recomputed, Value

LABELS_INPUT = "labels"


@dataclass(frozen=True, slots=True)
class Generated:
    """The generated module and its label half as text.

    ``module`` takes the placeholders of the captured graph and the label image, and returns the
    leaves of the model's output followed by their labels (None where an output has none).
    """

    module: GraphModule
    label_code: str


def generate(trace: Trace, rewrite: Callable[[Trace], Trace] = simplify_steps) -> Generated:
    """Put the label steps that some output needs beside the forward nodes.

    ``rewrite`` makes them lean first.

    Raises:
        LayoutError: a field has the dynamic batch in two dimensions, or an output's positions are
            repeated in ways that have no label of the output's shape.
    """
    return _Generator(rewrite(trace)).generate()


class _Generator:
    """The state of one generation; made for :func:`generate` alone."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.graph = Graph()
        self.originals = {node.name: node for node in trace.capture.graph.nodes}
        self.copies: dict[str, Node] = {}  # by the names of the captured graph's nodes
        self.fields: dict[LabelField, Node] = {}
        self.shapes: dict[Node, tuple[int, ...]] = {}
        self.arranged: dict[tuple[Node, Arrangement], Node] = {}
        self.replays: dict[Recomputed, Node] = {}
        self.calls: dict[Any, Node] = {}
        self.notes: dict[Node, str] = {}
        self.both: set[Node] = set()  # those noted nodes that compute the model's output as well
        self.prior: Node | None = None
        self.module_path = ""
        outputs = frozenset(value.field for value in trace.outputs if value and value.field)
        self.needed = needed_fields(trace.steps, outputs)

    def generate(self) -> Generated:
        labels: Node | None = None
        for node in self.trace.capture.graph.nodes:
            if node.op != "placeholder" and labels is None:
                labels = self.graph.placeholder(LABELS_INPUT)
                self._read_image(labels)
            if node.op == "output":
                self._output(node)
                continue
            self.module_path = location(node).module_path
            self._forward_node(node)
            self._label_steps(node)
        self._drop_unread()
        assert labels is not None
        label_code = self._label_code()  # in the order of the model's layers
        label_nodes = self.notes.keys() - self.both
        run_early(self.graph, labels, label_nodes)
        self.graph.lint()
        found = self.trace.capture
        flat = GraphModule(found.root, self.graph, class_name="LabelledGraph")
        state = {entry.placeholder for entry in found.state}
        module = with_checkpoints(flat, label_nodes, state, found.checkpoints)
        return Generated(module, label_code)

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
            self.prior = self._call(label_ops.prior_of, (field,), name="prior")

    def _output(self, node: Node) -> None:
        self.module_path = "output"
        leaves: Any = node.args[0]
        outputs = [self._copy(leaf) if isinstance(leaf, Node) else leaf for leaf in leaves]
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
        repeats = [repetition(axis) for d, axis in enumerate(layout.axes) if d != class_dim]
        groups += [(factor,) for factor in inside]
        field = self._arranged(self.fields[value.field], arrange(layout, groups))
        if inside:  # positions inside the channel axis of an output: their mean
            field = self._call(label_ops.aggregate, (field, len(inside)))
        for each in (True, False):
            counts = [count if whole is each else 1 for count, whole in repeats]
            if any(count != 1 for count in counts):
                field = self._call(label_ops.repeat, (field, counts, each))
        if class_dim == len(sizes) and all(size == -1 for size in sizes):
            return field
        return self._call(label_ops.write_output, (field, sizes, class_dim))

    # Steps.

    def _forward_node(self, node: Node) -> None:
        """The node's copy, or a call that computes its output and labels in one."""
        for field in self.trace.fields_of(node.name):
            step = self.trace.steps[field]
            if field in self.needed and isinstance(step, Attend) and step.joint:
                planned = instruction(step)
                assert isinstance(planned, Instruction)
                both = self._run(planned, "both")
                self.both.add(both)
                self.copies[node.name] = self.graph.create_node(
                    "call_function", operator.getitem, (both, 0), name=node.name
                )
                self._enter(field, self._call(operator.getitem, (both, 1)))
                return
        self.copies[node.name] = self.graph.node_copy(node, self._copy)

    def _copy(self, node: Node) -> Node:
        return self.copies[node.name]

    def _label_steps(self, node: Node) -> None:
        for field in self.trace.fields_of(node.name):
            if field in self.needed and field not in self.fields:
                self._enter(field, self._step(self.trace.steps[field]))

    def _enter(self, field: LabelField, node: Node) -> None:
        self.fields[field] = node
        self.shapes[node] = self.trace.steps[field].field_sizes

    def _step(self, step: LabelStep) -> Node:
        planned = instruction(step)
        if isinstance(planned, LabelView):
            return self._labels(planned)
        return self._run(planned)

    def _run(self, planned: Instruction, name: str = "y") -> Node:
        arguments = tuple(self._resolve(argument) for argument in planned.arguments)
        settings = {key: self._resolve(value) for key, value in planned.settings.items()}
        return self._call(planned.function, arguments, settings, name)

    def _resolve(self, argument: Any) -> Any:
        """An argument of an instruction as a node of the graph."""
        match argument:
            case LabelView():
                return self._labels(argument)
            case Operand():
                return self._source(argument.tensor)
            case Prior():
                return self.prior
            case Instruction():
                return self._run(argument, argument.function.__name__)
            case list():
                return [self._resolve(item) for item in argument]
        return argument

    def _labels(self, labels: LabelView) -> Node:
        field = labels.operand.field
        assert isinstance(field, LabelField)
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
            if field.target is label_ops.relayout:  # another shape for what is in order already
                settings.update(field.kwargs)
                (field,) = field.all_input_nodes
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

    def _source(self, source: TensorSource | None) -> Node:
        """A tensor in the new graph; mixing weights once more where dropout came between."""
        if isinstance(source, ValueRef):
            return self.copies[source.name]
        if isinstance(source, Rows):
            return self._rows(source)
        assert isinstance(source, Recomputed)
        if source not in self.replays:
            inputs = {name: self._source(other) for name, other in source.substitutes.items()}
            self.replays[source] = self.graph.node_copy(
                self.originals[source.call], lambda node: inputs.get(node.name) or self._copy(node)
            )
            self.replays[source].meta.pop("custom", None)  # in no region of the original's
        return self.replays[source]

    def _rows(self, rows: Rows) -> Node:
        cut = rows.cut
        step = {} if cut.step == 1 else {"step": cut.step}
        bounds = (self._source(rows.tensor), cut.dim, cut.start, cut.stop)
        return self._call(label_ops.cut, bounds, step, name="rows")

    def _call(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        settings: Mapping[str, Any] | None = None,
        name: str = "y",
    ) -> Node:
        """A call of a label function; equal ones are computed once."""
        key = (function, _frozen(arguments), _frozen(settings))
        if key not in self.calls:
            node = self.graph.create_node(
                "call_function", function, arguments, dict(settings or {}), name=name
            )
            self.notes[node] = self.module_path
            self.calls[key] = node
        return self.calls[key]

    def _drop_unread(self) -> None:
        """Label steps that others have taken the place of are not run."""
        for node in reversed(list(self.notes)):
            if not node.users:
                self.graph.erase_node(node)
                del self.notes[node]

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


def repetition(axis: Axis) -> tuple[int, bool]:
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


def _view_sizes(sizes: Sequence[int]) -> list[int]:
    """Sizes for a view: the dimension that holds a dynamic batch is left to be inferred."""
    dynamic = [size for size in sizes if size % BATCH == 0]
    if len(dynamic) > 1:
        raise LayoutError(
            "a dynamic batch stands in two dimensions of one label field: the model pairs every "
            "sample with every other; leave that step, a contrastive loss perhaps, out of the model"
        )
    return [-1 if size % BATCH == 0 else size for size in sizes]


def _frozen(value: Any) -> Any:
    """Arguments as part of a key."""
    if isinstance(value, Mapping):
        return tuple((key, _frozen(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    return value


def _code(node: Node) -> str:
    parts = [_text(argument) for argument in node.args]
    parts += [f"{key}={_text(value)}" for key, value in node.kwargs.items()]
    function: Any = node.target
    return f"{node.name} = {function.__name__}({', '.join(parts)})"


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return str(value) if isinstance(value, Node) else repr(value)
