"""Places: the nodes whose labels can be inspected, and how they are named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from labeltrace.capture.call_records import CallKind
from labeltrace.capture.module_paths import is_named, lies_in
from labeltrace.errors import LabelError, LayoutError
from labeltrace.flow import LabelField, ValueRef
from labeltrace.layout import Factor, Kind, Layout, channel, renumbered
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.values import Value

OUTPUT = "output"
"""The name for the model's first output that carries labels."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node whose tensor carries labels.

    Attributes:
        node: name of the node in the captured graph.
        module_path: path of the module whose forward pass created it; empty for the model itself.
        layout: the factors of each axis of its tensor.
        field: its label field; places with the same field have the same labels.
    """

    node: str
    module_path: str
    layout: Layout
    field: LabelField


def places(trace: Trace) -> tuple[Place, ...]:
    """Every node that carries labels, in the order of the graph, including the input.

    Examples:
        >>> import torch
        >>> import labeltrace
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ReLU())
        >>> trace = labeltrace.trace(model, torch.rand(2, 3, 16, 16))
        >>> [(place.node, place.module_path) for place in labeltrace.places(trace)]
        [('input', ''), ('conv2d', '0'), ('relu', '1')]
    """
    return tuple(_place(trace, node) for node in trace.labeled)


def find_places(trace: Trace, names: Iterable[str]) -> dict[str, Place]:
    """The places with these names.

    A name can be:

    - the name of a node, such as `"add_3"`;
    - `"output"`;
    - the path of a module, such as `"blocks.3"`: the last node in it that carries labels, which is
      what the module returns;
    - a pattern of paths, such as `"blocks.*"`: every matching module, in the order in which they
      finish.

    Returns:
        Each place by its name; for a pattern, by the paths of the modules.

    Raises:
        LabelError: nothing has such a name, or it carries no label.
    """
    if isinstance(names, str):
        raise LabelError(f"places are given as a list of names; write [{names!r}]")
    last = _last_node_of_modules(trace)
    found: dict[str, Place] = {}
    for name in names:
        if name == OUTPUT:
            found[name] = _output(trace)
        elif name in trace.labeled:
            found[name] = _place(trace, name)
        elif name in last:
            found[name] = _place(trace, last[name])
        else:
            matching = {path: node for path, node in last.items() if is_named(path, name)}
            if not matching:
                raise LabelError(_unknown_name(trace, name, last))
            inner_first = sorted(matching, key=lambda path: trace.order[matching[path]])
            found |= {path: _place(trace, matching[path]) for path in inner_first}
    return found


def step_places(trace: Trace, fields: Iterable[LabelField]) -> Iterator[Place]:
    """The places at which steps compute their fields."""
    for field in fields:
        layout = trace.steps[field].layout if field in trace.steps else trace.input_layout
        yield Place(field.node, trace.module_paths[field.node], layout, field)


def with_outputs_at(trace: Trace, selected: Iterable[Place]) -> Trace:
    """The trace with the labels (B, N, K) of places as its outputs, instead of its own outputs.

    N is the number of positions of a place except the batch, in the order of `token_layout`.
    """
    source = ValueRef(trace.input_field.node)
    outputs = tuple(Value(token_layout(place.layout), place.field, source) for place in selected)
    return replace(trace, outputs=outputs)


def token_layout(layout: Layout) -> Layout:
    """The layout of the same labels as (B, N, one channel), positions in the order of the field.

    This is the order of the tensor's axes, unless views or windows reorder the axes: they do not
    change the field.

    Raises:
        LayoutError: the batch is not a separate axis.
    """
    factors = sorted((f for axis in layout.axes for f in axis if f.is_position), key=_field_dim)
    batch = tuple(factor for factor in factors if factor.kind is Kind.BATCH)
    if not batch:
        raise LayoutError(
            f"the images of the batch are mixed here, so they have no labels of their own: "
            f"{layout}; choose a node before that"
        )
    others = tuple(factor for factor in factors if factor.kind is not Kind.BATCH)
    return Layout((batch, others, channel(1)))


def field_layout(layout: Layout) -> Layout:
    """A layout over the same field with an axis for each of its dimensions, and one channel.

    Raises:
        LayoutError: the batch is not the field's first dimension.
    """
    factors = sorted((f for axis in layout.axes for f in axis if f.is_position), key=_field_dim)
    if not factors or factors[0].kind is not Kind.BATCH:
        raise LayoutError(
            f"the batch is not the first of these positions: {layout}; choose another node"
        )
    return renumbered([*((factor,) for factor in factors), channel(1)])


def _field_dim(factor: Factor) -> int:
    return factor.field_dim


def _place(trace: Trace, node: str) -> Place:
    value = trace.labeled[node]
    assert value.field is not None
    return Place(node, trace.module_paths[node], value.layout, value.field)


def _output(trace: Trace) -> Place:
    (returned,) = (call for call in trace.calls if call.kind is CallKind.OUTPUT)
    for name in returned.inputs:
        if name in trace.labeled:
            return _place(trace, name)
    raise LabelError(
        "no output of the model comes from the image, so none carries labels; name a node instead"
    )


def _last_node_of_modules(trace: Trace) -> Mapping[str, str]:
    """The last node with labels in each module, including its submodules."""
    last: dict[str, str] = {}
    for node in trace.labeled:
        names = trace.module_paths[node].split(".")
        for end in range(1, len(names) + 1):
            last[".".join(names[:end])] = node
    last.pop("", None)
    return last


def _unknown_name(trace: Trace, name: str, modules: Mapping[str, str]) -> str:
    has_no_label = name in trace.module_paths or any(
        lies_in(path, name) for path in trace.module_paths.values()
    )
    if has_no_label:
        return (
            f"{name} carries no label: nothing in it is computed from the image, or only mixing "
            f"weights; labeltrace.places(trace) lists all nodes with labels"
        )
    close = get_close_matches(name, [*modules, *trace.labeled], n=3, cutoff=0.4)
    hint = f"; similar names: {', '.join(close)}" if close else ""
    return (
        f"the model has no node or module {name!r}{hint}; labeltrace.places(trace) lists all nodes "
        "with labels"
    )
