"""A recording as a graph of ATen operators, in the form in which a captured model has one.

So the records, the rules and the walk are the same for both. The nodes have example values on the
`meta` device: shapes, strides and shared memory as in the run, and no values.
"""

from __future__ import annotations

import inspect
import linecache
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.utils._pytree import TreeSpec, keystr, tree_flatten, tree_flatten_with_path

from labeltrace.capture.batch import fixed_batch
from labeltrace.capture.captured import Capture, StateInput
from labeltrace.capture.function_tags import FUNCTION_TAG
from labeltrace.capture.inputs import checked_channel_dim, first_tensor
from labeltrace.capture.node_info import signature
from labeltrace.recording.lost_values import check_nothing_lost
from labeltrace.recording.record import Run
from labeltrace.recording.recorded_calls import (
    CallPlace,
    OriginKind,
    RecordedCall,
    TensorInfo,
    TensorRef,
    refs_in,
)

RECORDED = "the model was recorded as it ran, for these sizes"


def recorded_capture(
    run: Run, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], channel_dim: int
) -> tuple[Capture, Mapping[str, int]]:
    """A recorded run as a capture, and the numbers of its tensors by the names of their nodes.

    Raises:
        CaptureError: no argument carries labels, or values of the image leave torch and come back.
    """
    leaf, image = first_tensor(args, kwargs)
    channel_dim = checked_channel_dim(image, channel_dim)
    check_nothing_lost(run, leaf)
    builder = _GraphBuilder(run, input_names(model, args, kwargs))
    graph = builder.build()
    types = {name: type(module) for name, module in model.named_modules()}
    _, input_spec = tree_flatten((args, dict(kwargs)))
    capture = Capture(
        graph=graph,
        root=nn.Module(),
        state=tuple(builder.state),
        constants=tuple(builder.constants),
        traced_input=builder.input_nodes[leaf].name,
        channel_dim=channel_dim,
        input_spec=input_spec,
        output_spec=run.output_spec,
        batch=fixed_batch(image.shape[0], RECORDED),
        switches_modes=False,
        module_types={**run.module_types, **types},
        functions=builder.functions,
        checkpoints={},
        calls=(),
    )
    return capture, {node.name: number for number, node in builder.nodes.items()}


def input_names(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, ...]:
    """A name for each leaf of the arguments, as the model's `forward` calls it."""
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    paths, _ = tree_flatten_with_path(dict(bound.arguments))
    names = [re.sub(r"\W+", "_", keystr(path)).strip("_") for path, _ in paths]
    leaves, _ = tree_flatten((args, dict(kwargs)))
    if len(names) != len(leaves):  # arguments without leaves or defaults
        return tuple(f"input_{index}" for index in range(len(leaves)))
    return tuple(names)


class _GraphBuilder:
    """Builds the graph: placeholders of what comes from outside, then a node for each call."""

    def __init__(self, run: Run, names: Sequence[str]) -> None:
        self._recording = run.recording
        self._tensors = run.recording.tensors
        self._kept = run.kept
        self._names = names
        self._values = _ExampleValues()
        self._texts: dict[Any, str] = {}
        self.graph = Graph()
        self.nodes: dict[int, Node] = {}
        self.state: list[StateInput] = []
        self.constants: list[Tensor | None] = []  # None where its values were not kept
        self.input_nodes: dict[int, Node] = {}
        self.functions: dict[str, Any] = {}

    def build(self) -> Graph:
        self._placeholders()
        recording = self._recording
        for call, place in zip(recording.calls, recording.places, strict=True):
            self._call(call, place)
        leaves = tuple(self._argument(leaf) for leaf in recording.outputs)
        self.graph.output(leaves)
        return self.graph

    def _placeholders(self) -> None:
        of_kind: dict[OriginKind, list[int]] = {kind: [] for kind in OriginKind}
        for number, info in enumerate(self._tensors):
            of_kind[info.origin.kind].append(number)
        for number in of_kind[OriginKind.STATE]:
            name = self._tensors[number].origin.detail
            node = self._placeholder(number, "p_" + name.replace(".", "_"))
            self.state.append(StateInput(node.name, name))
        for number in of_kind[OriginKind.CONSTANT]:
            self._placeholder(number, "constant")
            self.constants.append(self._kept.get(number))
        for number in of_kind[OriginKind.INPUT]:
            leaf = self._tensors[number].origin.detail
            self.input_nodes[leaf] = self._placeholder(number, self._names[leaf])

    def _placeholder(self, number: int, name: str) -> Node:
        node = self.graph.placeholder(name)
        node.meta["val"] = self._values.of(self._tensors[number])
        self.nodes[number] = node
        return node

    def _call(self, call: RecordedCall, place: CallPlace) -> None:
        if _gives_numbers_alone(call):  # what the model does with them, its later calls show
            return
        meta = self._place(call, place)
        arguments = self._argument(call.arguments)
        keywords = {name: self._argument(value) for name, value in call.keywords}
        name = call.operator._schema.name.rpartition("::")[2]  # as an export names it
        node = self.graph.create_node(
            "call_function", call.operator, arguments, keywords, name=name
        )
        node.meta.update(meta)
        node.meta["val"] = self._example(call.results)
        self._results(node, call.results, meta)

    def _results(self, node: Node, results: Any, meta: Mapping[str, Any]) -> None:
        if isinstance(results, TensorRef):
            self.nodes[results.number] = node
            return
        for index, result in enumerate(results if isinstance(results, tuple) else ()):
            if isinstance(result, (TensorRef, tuple)):
                item = self.graph.call_function(operator.getitem, (node, index))
                item.meta.update(meta)
                item.meta["val"] = self._example(result)
                self._results(item, result, meta)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, TensorRef):
            return self._node(value.number)
        if isinstance(value, tuple):
            return tuple([self._argument(item) for item in value])
        return value

    def _node(self, number: int) -> Node:
        """The node of a tensor; one for memory that was written to, or read without an operator."""
        if number not in self.nodes:
            info = self._tensors[number]
            source = self._node(info.origin.detail)
            if info.origin.kind is OriginKind.SAME_VALUES:
                node = self.graph.call_function(torch.ops.aten.alias.default, (source,))
            else:
                geometry = (list(info.shape), list(info.strides), info.offset)
                node = self.graph.call_function(
                    torch.ops.aten.as_strided.default, (source, *geometry)
                )
            node.meta["val"] = self._values.of(info)
            self.nodes[number] = node
        return self.nodes[number]

    def _example(self, results: Any) -> Any:
        if isinstance(results, TensorRef):
            return self._values.of(self._tensors[results.number])
        if isinstance(results, tuple):
            return tuple([self._example(item) for item in results])
        return results

    def _place(self, call: RecordedCall, place: CallPlace) -> dict[str, Any]:
        meta: dict[str, Any] = {
            "nn_module_stack": {
                module.key: (module.path, f"{module.kind.__module__}.{module.kind.__qualname__}")
                for module in place.modules
                if module.kind is not None
            },
            "stack_trace": self._text(call.line),
        }
        if place.function is not None:
            tag, function = place.function
            self.functions[tag] = function
            meta["custom"] = {FUNCTION_TAG: tag}
        return meta

    def _text(self, line: tuple[Any, int] | None) -> str:
        """A line of the model in the form of a traceback."""
        if line is None:
            return ""
        if line not in self._texts:
            code, number = line
            text = linecache.getline(code.co_filename, number).strip()
            self._texts[line] = (
                f'  File "{code.co_filename}", line {number}, in {code.co_name}\n    {text}'
            )
        return self._texts[line]


def _gives_numbers_alone(call: RecordedCall) -> bool:
    """Whether a call gives no tensor and writes to none, as `item` and comparisons do."""
    return not any(refs_in(call.results)) and not signature(call.operator).written


class _ExampleValues:
    """Tensors on the `meta` device that share memory as those of the run did."""

    def __init__(self) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}

    def of(self, info: TensorInfo) -> Tensor:
        """A tensor with this geometry."""
        if info.storage < 0:  # not strided
            return torch.empty(info.shape, dtype=info.dtype, device="meta")
        reach = sum((n - 1) * abs(s) for n, s in zip(info.shape, info.strides, strict=True))
        size = (info.offset + reach + 1) * info.dtype.itemsize if 0 not in info.shape else 0
        storage = self._storages.get(info.storage)
        if storage is None:
            storage = torch.UntypedStorage(size, device="meta")
            self._storages[info.storage] = storage
        if storage.nbytes() < size:
            storage.resize_(size)
        empty = torch.empty(0, dtype=info.dtype, device="meta")
        return empty.set_(storage, info.offset, info.shape, info.strides)


__all__ = ["TreeSpec", "input_names", "recorded_capture"]
