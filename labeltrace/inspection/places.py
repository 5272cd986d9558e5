"""Places: the nodes at which labels can be looked at, and how they are named."""

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
"""The name of the model's first output that carries labels."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node whose tensor carries labels.

    Attributes:
        node: its name in the captured graph.
        module_path: the module whose forward pass made it; empty for the model itself.
        layout: what the axes of its tensor are made of.
        field: its label field; places with one field have the same labels.
    """

    node: str
    module_path: str
    layout: Layout
    field: LabelField


def places(trace: Trace) -> tuple[Place, ...]:
    """Every node that carries labels, in the order of the graph, the input included.

    Example:
        >>> import torch
        >>> from labeltrace import places, trace
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ReLU())
        >>> [place.node for place in places(trace(model, torch.rand(2, 3, 8, 8)))]
        ['input', 'conv2d', 'relu']
    """
    return tuple(_place(trace, node) for node in trace.labelled)


def places_named(trace: Trace, names: Iterable[str]) -> dict[str, Place]:
    """The places that names stand for.

    A name is that of a node (``"add_3"``), ``"output"``, a module's path (``"blocks.3"``: the last
    node in it that carries labels, which is what the module returns), or a pattern of paths
    (``"blocks.*"``: every module that fits, in the order in which they are done).

    Returns:
        Each place by the name that was given for it; for a pattern, by the modules' paths.

    Raises:
        LabelError: nothing has such a name, or it carries no label.
    """
    if isinstance(names, str):
        raise LabelError(f"places are given as a list of names; write [{names!r}]")
    last = _last_in_modules(trace)
    found: dict[str, Place] = {}
    for name in names:
        if name == OUTPUT:
            found[name] = _output(trace)
        elif name in trace.labelled:
            found[name] = _place(trace, name)
        elif name in last:
            found[name] = _place(trace, last[name])
        else:
            fitting = {path: node for path, node in last.items() if is_named(path, name)}
            if not fitting:
                raise LabelError(_no_such_place(trace, name, last))
            inner_first = sorted(fitting, key=lambda path: trace.order[fitting[path]])
            found |= {path: _place(trace, fitting[path]) for path in inner_first}
    return found


def step_places(trace: Trace, fields: Iterable[LabelField]) -> Iterator[Place]:
    """The places at which steps compute their fields."""
    for field in fields:
        layout = trace.steps[field].layout if field in trace.steps else trace.input_layout
        yield Place(field.node, trace.module_paths[field.node], layout, field)


def with_outputs_at(trace: Trace, seen: Iterable[Place]) -> Trace:
    """The trace with labels of places for outputs instead of its own: (B, N, K) each.

    N counts all positions of a place but the batch, in the order of :func:`tokens`.
    """
    source = ValueRef(trace.input_field.node)
    outputs = tuple(Value(tokens(place.layout), place.field, source) for place in seen)
    return replace(trace, outputs=outputs)


def tokens(layout: Layout) -> Layout:
    """The same labels as (B, N, one channel), positions in the order of the label field.

    That is the order of a tensor's axes, until views and windows reorder these: they leave the
    field as it is.

    Raises:
        LayoutError: the batch is no axis of its own.
    """
    factors = sorted((f for axis in layout.axes for f in axis if f.is_position), key=_slot)
    batch = tuple(factor for factor in factors if factor.kind is Kind.BATCH)
    if not batch:
        raise LayoutError(f"images cannot be told apart where the batch is mixed: {layout}")
    others = tuple(factor for factor in factors if factor.kind is not Kind.BATCH)
    return Layout((batch, others, channel(1)))


def field_layout(layout: Layout) -> Layout:
    """A layout over the same field with an axis for each of its dimensions, and one channel.

    Raises:
        LayoutError: the batch is not the field's first dimension.
    """
    factors = sorted((f for axis in layout.axes for f in axis if f.is_position), key=_slot)
    if not factors or factors[0].kind is not Kind.BATCH:
        raise LayoutError(f"the batch is not the first of these positions: {layout}")
    return renumbered([*((factor,) for factor in factors), channel(1)])


def _slot(factor: Factor) -> int:
    return factor.field_dim


def _place(trace: Trace, node: str) -> Place:
    value = trace.labelled[node]
    assert value.field is not None
    return Place(node, trace.module_paths[node], value.layout, value.field)


def _output(trace: Trace) -> Place:
    (returned,) = (call for call in trace.calls if call.kind is CallKind.OUTPUT)
    for name in returned.inputs:
        if name in trace.labelled:
            return _place(trace, name)
    raise LabelError("no output of the model comes from the image, so none carries labels")


def _last_in_modules(trace: Trace) -> Mapping[str, str]:
    """The last node with labels in each module, what lies inside it included."""
    last: dict[str, str] = {}
    for node in trace.labelled:
        names = trace.module_paths[node].split(".")
        for end in range(1, len(names) + 1):
            last[".".join(names[:end])] = node
    last.pop("", None)
    return last


def _no_such_place(trace: Trace, name: str, modules: Mapping[str, str]) -> str:
    unlabelled = name in trace.module_paths or any(
        lies_in(path, name) for path in trace.module_paths.values()
    )
    if unlabelled:
        return (
            f"{name} carries no label: nothing in it comes from the image, or only mixing weights"
        )
    close = get_close_matches(name, [*modules, *trace.labelled], n=3, cutoff=0.4)
    hint = f"; close to it: {', '.join(close)}" if close else ""
    return (
        f"the model has no node or module {name!r}{hint}; labeltrace.places(trace) lists all nodes "
        "with labels"
    )
