"""A captured graph, read into records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from labeltrace.capture.call_records import ModelCalls
from labeltrace.capture.capture import capture_model
from labeltrace.capture.graph_records import read_graph
from labeltrace.flow import ValueRef
from labeltrace.layout import BATCH


class Model(nn.Module):
    """A layer, then a function of its output."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.layer(x))


def doubled(x: Tensor) -> Tensor:
    return x * 2


def calls_of(function: Callable[[Tensor], Any], *whole: Callable[..., Any]) -> ModelCalls:
    return read_graph(capture_model(Model(function), (torch.randn(2, 3, 5, 7),), whole=whole))


def test_arguments_have_the_names_of_the_schema() -> None:
    calls = calls_of(lambda x: F.softmax(x.flatten(2), dim=-1))
    softmax = calls["softmax"]
    assert softmax.operator_names == ("aten.softmax.int", "aten.softmax")
    assert softmax.operator == "aten.softmax"
    assert softmax.arguments == {"self": ValueRef("flatten"), "dim": -1, "dtype": None}
    assert softmax.inputs == ("flatten",)
    assert calls["flatten"].users == ("softmax",)
    assert softmax.location.module_path == ""
    assert calls["conv2d"].location.module_path == "layer"
    assert calls["conv2d"].location.module_type == "Conv2d"
    assert [module.kind for module in calls["conv2d"].modules] == [Model, nn.Conv2d]


def test_kinds_and_order() -> None:
    calls = calls_of(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1))
    assert [call.index for call in calls] == list(range(len(calls.records)))
    assert [call.kind.value for call in calls] == [
        *("input", "input", "input"),
        *("operator", "operator", "item", "item", "operator", "output"),
    ]
    assert len(calls["chunk"].tensors) == 2
    assert calls["chunk"].tensor is None
    assert calls["getitem_1"].arguments == {"source": ValueRef("chunk"), "index": 1}
    assert calls["cat"].arguments["tensors"] == (ValueRef("getitem_1"), ValueRef("getitem"))
    assert calls["output"].arguments == {"leaves": (ValueRef("cat"),)}
    assert calls.state == {"p_layer_weight": "layer.weight", "p_layer_bias": "layer.bias"}
    assert calls.traced_input == "x"


def test_a_dynamic_batch_is_a_number() -> None:
    calls = calls_of(lambda x: x.reshape(x.shape[0] * 5, -1))
    reshape = calls["reshape"]
    assert reshape.arguments["shape"] == (5 * BATCH, -1)
    assert reshape.tensor is not None
    assert reshape.tensor.shape == (5 * BATCH, 28)
    (size,) = (call for call in calls if call.reads_sizes_only)
    assert size.tensors == ()
    assert set(size.users) & {"reshape", *reshape.inputs}


def test_views_and_writes() -> None:
    def function(x: Tensor) -> Tensor:
        whole = x + 0
        part, same = whole[:, :2], whole[:, :]
        whole.mul_(2)
        return part + same[:, :2]

    calls = calls_of(function)
    (write,) = (call for call in calls if call.written)
    assert write.operator_names[-1] == "aten.mul"
    assert write.operator_names[1] == "aten.mul_"
    assert (write.written, write.overwritten) == ("add", ("add",))
    tensor = calls["add"].tensor
    assert tensor is not None
    views = [call for call in calls if call.tensor and call.tensor.storage == tensor.storage]
    equal = [call.name for call in views if call.tensor and call.tensor.is_same_view(tensor)]
    assert write.name in equal
    assert len(equal) < len(views)
    assert calls.overwritten_storages() == {tensor.storage}


def test_functions_and_checkpoints() -> None:
    calls = calls_of(lambda x: checkpoint(torch.relu, doubled(x), use_reentrant=False), doubled)
    (inside,) = (call for call in calls if call.function is not None)
    assert inside.operator == "aten.mul"
    assert inside.function is not None
    assert inside.function.function is doubled
    assert [call.operator for call in calls if call.checkpoint] == ["aten.relu"]
