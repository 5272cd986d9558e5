"""A captured graph as records of its calls: each node is read here, once, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from labeltrace.capture.call_records import (
    CallKind,
    CallRecord,
    FunctionCall,
    Location,
    ModelCalls,
    ModuleCall,
    Shape,
    TensorRecord,
)
from labeltrace.capture.captured import Capture
from labeltrace.capture.checkpoint_tags import checkpoint_tag
from labeltrace.capture.function_tags import FUNCTION_TAG
from labeltrace.capture.node_info import (
    clean_path,
    is_getitem,
    nodes_in,
    operator_names,
    schema_arguments,
    source_line,
    storage_id,
    tensors_of,
    written_arguments,
)
from labeltrace.capture.symbolic_sizes import size_of
from labeltrace.capture.value_sizes import depends_on_values
from labeltrace.flow import ValueRef
from labeltrace.layout import Size

_KINDS: Mapping[str, CallKind] = {
    "placeholder": CallKind.INPUT,
    "get_attr": CallKind.INPUT,
    "call_function": CallKind.OPERATOR,
    "output": CallKind.OUTPUT,
}


def read_graph(capture: Capture) -> ModelCalls:
    """The calls of a captured graph, in its order."""
    reader = _GraphReader(capture)
    records = {node.name: reader.read(i, node) for i, node in enumerate(capture.graph.nodes)}
    return ModelCalls(
        records=records,
        traced_input=capture.traced_input,
        channel_dim=capture.channel_dim,
        state={entry.placeholder: entry.name for entry in capture.state},
    )


class _GraphReader:
    """Reads nodes; remembers what is the same for many of them."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._sizes: dict[Any, Size] = {}
        self._lines: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._modules: dict[tuple[Any, ...], tuple[tuple[ModuleCall, ...], str]] = {}

    def read(self, index: int, node: Node) -> CallRecord:
        """The record of one node."""
        modules, module_type = self._module_calls(node)
        written = written_arguments(node)
        return CallRecord(
            name=node.name,
            kind=CallKind.ITEM if is_getitem(node) else _KINDS[node.op],
            index=index,
            operator_names=operator_names(node),
            arguments=self._arguments(node),
            inputs=tuple(other.name for other in node.all_input_nodes),
            users=tuple(user.name for user in node.users),
            value=self._value(node.meta.get("val")),
            location=self._location(node, modules, module_type),
            written=written[0].name if written and isinstance(written[0], Node) else None,
            overwritten=tuple(other.name for other in nodes_in(written)) if written else (),
            modules=modules,
            function=self._function_call(node),
            checkpoint=checkpoint_tag(node),
            sized_by_values=depends_on_values(node.meta.get("val")),
        )

    # Tensors.

    def _value(self, value: Any) -> TensorRecord | tuple[TensorRecord, ...]:
        if isinstance(value, Tensor):
            return self._tensor(value)
        return tuple(self._tensor(tensor) for tensor in tensors_of(value))

    def _tensor(self, tensor: Tensor) -> TensorRecord:
        return TensorRecord(
            shape=self._sizes_of(tensor.shape),
            strides=self._sizes_of(tensor.stride()),
            offset=self._size(tensor.storage_offset()),
            storage=storage_id(tensor),
            is_floating=tensor.is_floating_point() or tensor.is_complex(),
            dtype=tensor.dtype,
            size_is_known=not depends_on_values(tensor),
        )

    def _sizes_of(self, sizes: Iterable[Any]) -> Shape:
        return tuple([size if type(size) is int else self._size(size) for size in sizes])

    def _size(self, size: Any) -> Size:
        """A size as layouts have it.

        Expressions are looked up, since the same few occur thousands of times in a graph.
        """
        if type(size) is int:
            return size
        expression = size.node.expr
        if expression not in self._sizes:
            self._sizes[expression] = size_of(expression, self._capture.batch.size)
        return self._sizes[expression]

    # Arguments.

    def _arguments(self, node: Node) -> Mapping[str, Any]:
        if node.op == "output":
            leaves: Any = node.args[0]
            return {"leaves": tuple(ValueRef(x.name) if isinstance(x, Node) else x for x in leaves)}
        if is_getitem(node):
            (source,) = node.all_input_nodes
            return {"source": ValueRef(source.name), "index": node.args[1]}
        if node.op != "call_function":
            return {}
        return {name: self._argument(value) for name, value in schema_arguments(node).items()}

    def _argument(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple([self._argument(item) for item in value])
        if not isinstance(value, Node):
            return value
        example = value.meta.get("val")
        if isinstance(example, (Tensor, list, tuple)):
            return ValueRef(value.name)
        return self._size(example) if isinstance(example, torch.SymInt) else example

    # Places.

    def _location(self, node: Node, modules: tuple[ModuleCall, ...], module_type: str) -> Location:
        trace = node.meta.get("stack_trace") or ""
        if trace not in self._lines:
            self._lines[trace] = source_line(trace)
        return Location(modules[-1].path if modules else "", module_type, self._lines[trace])

    def _module_calls(self, node: Node) -> tuple[tuple[ModuleCall, ...], str]:
        """The calls of modules around a node, and the name of the innermost one's class."""
        stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
        known_by = tuple(stack.items())
        found = self._modules.get(known_by)
        if found is None:
            calls = tuple(self._module_call(key, path) for key, (path, _) in known_by)
            innermost = str(known_by[-1][1][1]).rsplit(".", 1)[-1] if known_by else ""
            found = self._modules[known_by] = (calls, innermost)
        return found

    def _module_call(self, key: str, path: str) -> ModuleCall:
        if path not in self._paths:
            self._paths[path] = clean_path(path)
        cleaned = self._paths[path]
        return ModuleCall(key, cleaned, self._capture.module_types.get(cleaned))

    def _function_call(self, node: Node) -> FunctionCall | None:
        tag = (node.meta.get("custom") or {}).get(FUNCTION_TAG)
        return None if tag is None else FunctionCall(tag, self._capture.functions[tag])
