"""What a graph's nodes say: which memory is written to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.fx import Graph

from labeltrace.capture.node_info import overwritten_memory, storage_of


def all_operators_write(graph: Graph, a: Any, b: Any, c: Any, d: Any) -> set[Any]:
    graph.call_function(torch.ops.aten._foreach_mul_.Scalar, ([a, b], 2))
    graph.call_function(
        torch.ops.aten.frexp.Tensor_out, (a,), {"mantissa": c, "exponent": d.args[0]}
    )
    return {a, b, c, d}


def no_operator_writes(graph: Graph, a: Any, b: Any, c: Any, d: Any) -> set[Any]:
    graph.call_function(torch.ops.aten._foreach_mul.Scalar, ([a, b], 2))
    graph.call_function(torch.ops.aten.frexp.Tensor, (c,))
    return set()


@pytest.mark.parametrize("calls", [all_operators_write, no_operator_writes])
def test_every_argument_that_is_written_to_counts(calls: Any) -> None:
    graph = Graph()
    nodes = [graph.placeholder(name) for name in "abcx"]
    nodes.append(graph.call_function(torch.ops.aten.view.default, (nodes[-1], [3, 2])))
    for node in nodes[:4]:
        node.meta["val"] = torch.empty(6)
    nodes[4].meta["val"] = nodes[3].meta["val"].view(3, 2)
    written = calls(graph, *nodes[:3], nodes[4])
    assert overwritten_memory(graph) == {storage_of(node) for node in written}
