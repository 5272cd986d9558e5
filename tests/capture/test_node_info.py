"""What a graph's nodes say: module paths, what lies in what, and which memory is written to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.fx import Graph

from labeltrace.capture.node_info import (
    is_named,
    lies_in,
    lies_in_named,
    overwritten_memory,
    storage_of,
)


@pytest.mark.parametrize(
    ("path", "module", "inside"),
    [
        ("blocks.1", "", True),
        ("", "", True),
        ("", "blocks", False),
        ("blocks.1", "blocks.1", True),
        ("blocks.1.attn", "blocks.1", True),
        ("blocks.11", "blocks.1", False),
        ("blocks.1", "blocks.1.attn", False),
        ("head", "blocks", False),
    ],
)
def test_inside_a_module(path: str, module: str, inside: bool) -> None:
    assert lies_in(path, module) is inside


@pytest.mark.parametrize(
    ("path", "pattern", "named", "inside"),
    [
        ("blocks.1", "blocks.*", True, True),
        ("blocks.1.attn", "blocks.*", False, True),
        ("blocks", "blocks.*", False, False),
        ("blocks.1.attn", "blocks.*.attn", True, True),
        ("blocks.1.mlp", "blocks.*.attn", False, False),
        ("stem.conv", "blocks.*", False, False),
    ],
)
def test_patterns(path: str, pattern: str, named: bool, inside: bool) -> None:
    assert is_named(path, pattern) is named
    assert lies_in_named(path, pattern) is inside


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
