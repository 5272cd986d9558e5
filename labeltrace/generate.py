"""Generation: from flows to one module that runs forward and label nodes side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.fx
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from labeltrace import label_ops
from labeltrace.errors import LayoutError
from labeltrace.flow import (
    AdaptivePool,
    Aggregate,
    Attend,
    Average,
    Convolve,
    Flip,
    Join,
    Labels,
    Mix,
    Operand,
    Pad,
    Pool,
    Rearrange,
    Roll,
    Select,
    Slice,
    Step,
    Take,
)
from labeltrace.layout import (
    BATCH,
    Arrangement,
    Factor,
    Layout,
    arrange,
    has_channels,
    has_positions,
    positions,
)
from labeltrace.reading import location
from labeltrace.tracing import BoundStep, Field, Replay, Source, Trace, Value

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
        LayoutError: an output's layout has no label of the form that the contract's point 10 asks.
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
        self.module = ""
        self.needed = _needed_fields(trace)

    def generate(self) -> Generated:
        capture = self.trace.capture
        labels: Node | None = None
        for node in capture.graph.nodes:
            if node.op != "placeholder" and labels is None:
                labels = self.graph.placeholder(LABELS_INPUT)
                self._read_image(labels)
            if node.op == "output":
                self._output(node)
                continue
            self.copies[node] = self.graph.node_copy(node, self.copies.__getitem__)
            self._label_steps(node)
        self.graph.lint()
        module = GraphModule(capture.root, self.graph, class_name="LabelledGraph")
        return Generated(module, self._label_code())

    # Ends. ----------------------------------------------------------------------------------------

    def _read_image(self, labels: Node) -> None:
        image = next(n for n in self.copies if n.name == self.trace.capture.traced_input)
        value = _input_layout(self.trace)
        sizes = value.field_sizes
        if not self.needed:
            return
        field = self._call(label_ops.read_image, labels, list(sizes[1:]))
        self.notes[field] = f"the label image of {image.name}"
        self.shapes[field] = sizes
        self.fields[self.trace.input_field] = field
        if _needs_prior(self.trace, self.needed):
            self.prior = self._call(label_ops.prior, field, name="prior")

    def _output(self, node: Node) -> None:
        leaves = [
            self.copies[leaf] if isinstance(leaf, Node) else leaf
            for leaf in node.args[0]  # type: ignore[union-attr]
        ]
        self.module = "output"
        labels = [self._output_label(value) for value in self.trace.outputs]
        self.graph.output((*leaves, *labels))

    def _output_label(self, value: Value | None) -> Node | None:
        if value is None or value.field is None:
            return None
        layout = value.layout
        class_dim = class_axis(layout)
        groups: list[Sequence[Factor]] = []
        sizes: list[int] = []
        inner: list[Factor] = []
        for dim, axis in enumerate(layout.axes):
            if dim == class_dim or (has_positions(axis) and has_channels(axis)):
                inner.extend(positions(axis))
            if dim == class_dim:
                continue
            groups.append(() if has_channels(axis) else positions(axis))
            sizes.append(-1 if has_positions(axis) else layout.shape[dim])
        groups += [(factor,) for factor in inner]
        field = self._arranged_field(self.fields[value.field], arrange(layout, groups))
        if inner:  # positions inside the channel axis of an output: their mean
            field = self._call(label_ops.aggregate, field, len(inner))
        if class_dim == len(sizes) and -1 in sizes and all(size == -1 for size in sizes):
            return field
        return self._call(label_ops.write_output, field, sizes, class_dim)

    # Steps. ---------------------------------------------------------------------------------------

    def _label_steps(self, node: Node) -> None:
        self.module = location(node).module_path
        index = 0
        while (field := Field(node.name, index)) in self.trace.steps:
            if field in self.needed:
                step = self.trace.steps[field]
                self.fields[field] = self._step(step)
                self.shapes[self.fields[field]] = step.flow.field_sizes
            index += 1

    def _step(self, step: BoundStep) -> Node:
        flow = step.flow
        emit = _EMITTERS[type(flow)]
        return emit(self, flow, step)

    def _labels(self, labels: Labels) -> Node:
        field = labels.operand.field
        assert isinstance(field, Field)
        return self._arranged_field(self.fields[field], labels.arrangement)

    def _arranged_field(self, field: Node, arrangement: Arrangement) -> Node:
        """The field with other dimensions; the field itself where nothing changes."""
        key = (field, arrangement)
        if key not in self.arranged:
            self.arranged[key] = self._relayout(field, arrangement)
        return self.arranged[key]

    def _relayout(self, field: Node, arrangement: Arrangement) -> Node:
        stored = self.shapes[field]
        order = tuple(slot for group in arrangement.groups for slot in group)
        target = arrangement.shape
        if order == tuple(range(len(order))) and target == stored:
            return field
        settings: dict[str, Any] = {}
        if order == tuple(range(len(order))):
            settings["merge"] = _view_sizes(target)
        else:
            if arrangement.sizes != stored:
                settings["split"] = _view_sizes(arrangement.sizes)
            settings["order"] = list(order)
            if target != tuple(arrangement.sizes[slot] for slot in order):
                settings["merge"] = _view_sizes(target)
        moved = self._call(label_ops.relayout, field, **settings)
        self.shapes[moved] = target
        return moved

    def _tensor(self, step: BoundStep, operand: Operand | None) -> Node | None:
        return None if operand is None else self._source(step.tensors[operand.path])

    def _source(self, source: Source) -> Node:
        if isinstance(source, Node):
            return self.copies[source]
        if source not in self.replays:
            substitutes = {
                node: self._source(other) for node, other in source.substitutes.items()
            }
            self.replays[source] = self.graph.node_copy(
                source.node, lambda node: substitutes.get(node) or self.copies[node]
            )
        return self.replays[source]

    def _call(
        self, function: Callable[..., Tensor], *args: Any, name: str = "y", **kwargs: Any
    ) -> Node:
        node = self.graph.create_node("call_function", function, args, kwargs, name=name)
        self.notes.setdefault(node, self.module)
        return node

    # The label half as text. ----------------------------------------------------------------------

    def _label_code(self) -> str:
        lines = []
        for node in self.graph.nodes:
            if node in self.notes:
                lines.append((_code(node), self.notes[node]))
        width = min(max((len(code) for code, _ in lines), default=0), 92)
        text = [f"    {code:<{width}}  # {note}".rstrip("# ") for code, note in lines]
        output = next(iter(reversed(self.graph.nodes)))
        leaves = output.args[0][len(self.trace.outputs) :]
        returned = ", ".join(str(leaf) for leaf in leaves)
        return "\n".join([f"def label_graph({LABELS_INPUT}):", *text, f"    return {returned}"])


def _code(node: Node) -> str:
    parts = [_text(argument) for argument in node.args]
    parts += [f"{key}={_text(value)}" for key, value in node.kwargs.items()]
    return f"{node.name} = {node.target.__name__}({', '.join(parts)})"  # type: ignore[union-attr]


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return str(value) if isinstance(value, Node) else repr(value)


def _view_sizes(sizes: Sequence[int]) -> list[int]:
    """Sizes for a view: the dimension that holds a dynamic batch is left to be inferred."""
    dynamic = [size for size in sizes if size % BATCH == 0]
    if len(dynamic) > 1:
        raise LayoutError("a dynamic batch stands in two dimensions of one label field")
    return [-1 if size % BATCH == 0 else size for size in sizes]


def class_axis(layout: Layout) -> int:
    """The axis of an output in whose place its label has the K sources.

    It is the last axis that has channels, or none: then K is appended.
    """
    channels = [dim for dim, axis in enumerate(layout.axes) if has_channels(axis)]
    return channels[-1] if channels else len(layout.axes)


def _input_layout(trace: Trace) -> Layout:
    from labeltrace.layout import image
    from labeltrace.reading import Sizes

    node = next(n for n in trace.capture.graph.nodes if n.name == trace.capture.traced_input)
    return image(Sizes().shape(node.meta["val"]), trace.capture.channel_dim)


def _needed_fields(trace: Trace) -> frozenset[Field]:
    """The fields that some output depends on, the input's included."""
    needed: set[Field] = set()
    queue = [value.field for value in trace.outputs if value is not None and value.field]
    while queue:
        field = queue.pop()
        if field in needed:
            continue
        needed.add(field)
        if field in trace.steps:
            queue += [labels.operand.field for labels in trace.steps[field].flow.labels]  # type: ignore[misc]
    return frozenset(needed)


def _needs_prior(trace: Trace, needed: frozenset[Field]) -> bool:
    flows = [trace.steps[field].flow for field in needed if field in trace.steps]
    return any(
        (isinstance(flow, Join) and None in flow.pieces)
        or (isinstance(flow, Pad) and flow.mode == "prior")
        for flow in flows
    )


# One function a flow. -------------------------------------------------------------------------------


def _emit_rearrange(generator: _Generator, flow: Rearrange, step: BoundStep) -> Node:
    return generator._labels(flow.source)


def _emit_mix(generator: _Generator, flow: Mix, step: BoundStep) -> Node:
    labels = generator._labels(flow.source)
    weights = generator._tensor(step, flow.weights)
    return generator._call(label_ops.mix, labels, weights, flow.notation, **dict(flow.sizes))


def _emit_attend(generator: _Generator, flow: Attend, step: BoundStep) -> Node:
    labels = generator._labels(flow.source)
    query, key = (generator._tensor(step, operand) for operand in (flow.query, flow.key))
    settings: dict[str, Any] = dict(flow.sizes)
    if flow.mask is not None:
        settings["mask"] = generator._tensor(step, flow.mask)
    if flow.is_causal:
        settings["is_causal"] = True
    if flow.scale is not None:
        settings["scale"] = flow.scale
    if flow.grouped_heads:
        settings["grouped_heads"] = True
    return generator._call(label_ops.attend, labels, query, key, flow.notation, **settings)


def _emit_convolve(generator: _Generator, flow: Convolve, step: BoundStep) -> Node:
    labels = generator._labels(flow.source)
    weights = generator._tensor(step, flow.weights)
    return generator._call(
        label_ops.convolve,
        labels,
        weights,
        list(flow.stride),
        [list(pair) for pair in flow.padding],
        list(flow.dilation),
    )


def _emit_pool(generator: _Generator, flow: Pool, step: BoundStep) -> Node:
    labels = generator._labels(flow.source)
    settings = [list(s) for s in (flow.kernel, flow.stride, flow.padding, flow.dilation)]
    extra = {"ceil_mode": True} if flow.ceil_mode else {}
    return generator._call(label_ops.pool, labels, *settings, **extra)


def _emit_adaptive_pool(generator: _Generator, flow: AdaptivePool, step: BoundStep) -> Node:
    labels = generator._labels(flow.source)
    return generator._call(label_ops.adaptive_pool, labels, list(flow.output_size))


def _emit_aggregate(generator: _Generator, flow: Aggregate, step: BoundStep) -> Node:
    return generator._call(label_ops.aggregate, generator._labels(flow.source), flow.count)


def _emit_average(generator: _Generator, flow: Average, step: BoundStep) -> Node:
    shares: dict[Node, int] = {}
    for labels, share in zip(flow.sources, flow.shares, strict=True):
        piece = generator._labels(labels)
        shares[piece] = shares.get(piece, 0) + share
    if len(shares) == 1:
        return next(iter(shares))
    equal = len(set(shares.values())) == 1
    extra = {} if equal else {"shares": list(shares.values())}
    return generator._call(label_ops.average, list(shares), **extra)


def _emit_slice(generator: _Generator, flow: Slice, step: BoundStep) -> Node:
    labels = generator._labels(flow.source)
    extra = {} if flow.step == 1 else {"step": flow.step}
    return generator._call(label_ops.cut, labels, flow.dim, flow.start, flow.end, **extra)


def _emit_select(generator: _Generator, flow: Select, step: BoundStep) -> Node:
    return generator._call(
        label_ops.select, generator._labels(flow.source), flow.dim, flow.index
    )


def _emit_roll(generator: _Generator, flow: Roll, step: BoundStep) -> Node:
    labels = generator._labels(flow.source)
    return generator._call(label_ops.roll, labels, list(flow.shifts), list(flow.dims))


def _emit_flip(generator: _Generator, flow: Flip, step: BoundStep) -> Node:
    return generator._call(label_ops.flip, generator._labels(flow.source), list(flow.dims))


def _emit_take(generator: _Generator, flow: Take, step: BoundStep) -> Node:
    labels = generator._labels(flow.source)
    return generator._call(label_ops.take, labels, flow.dim, generator._tensor(step, flow.index))


def _emit_pad(generator: _Generator, flow: Pad, step: BoundStep) -> Node:
    labels = generator._labels(flow.source)
    widths = [list(pair) for pair in flow.widths]
    if flow.mode != "prior":
        return generator._call(label_ops.pad, labels, None, widths, flow.mode)
    extra = {"batch_dim": flow.batch_dim} if flow.batch_dim else {}
    return generator._call(label_ops.pad, labels, generator.prior, widths, **extra)


def _emit_join(generator: _Generator, flow: Join, step: BoundStep) -> Node:
    pieces = [
        generator.prior if piece is None else generator._labels(piece) for piece in flow.pieces
    ]
    extra = {"batch_dim": flow.batch_dim} if flow.batch_dim else {}
    return generator._call(label_ops.join, pieces, list(flow.sizes), flow.dim, **extra)


_EMITTERS: Mapping[type[Step], Callable[..., Node]] = {
    Rearrange: _emit_rearrange,
    Mix: _emit_mix,
    Attend: _emit_attend,
    Convolve: _emit_convolve,
    Pool: _emit_pool,
    AdaptivePool: _emit_adaptive_pool,
    Aggregate: _emit_aggregate,
    Average: _emit_average,
    Slice: _emit_slice,
    Select: _emit_select,
    Roll: _emit_roll,
    Flip: _emit_flip,
    Take: _emit_take,
    Pad: _emit_pad,
    Join: _emit_join,
}
