"""Label steps run as soon as what they read is there, and none moves past a write to it."""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

import labeltrace
from labeltrace.codegen.generate import generate
from labeltrace.codegen.scheduling import run_early

TWICE, TWICE_IN_PLACE = torch.ops.aten.mul.Tensor, torch.ops.aten.mul_.Tensor


def mixed(*values: Tensor) -> Tensor:
    return torch.stack(values).sum(0)


def part(value: Tensor) -> Tensor:
    return value[:]


@dataclass(frozen=True)
class Drawn:
    """A graph that returns what its label steps computed; some nodes write to what they read."""

    graph: Graph
    labels: Node
    steps: frozenset[Node]
    writes: bool

    def run(self) -> list[Tensor]:
        inputs = torch.arange(1.0, 5)[:, None].unbind()
        return [value.clone() for value in GraphModule(nn.Module(), self.graph)(*inputs)]


@st.composite
def graphs(draw: st.DrawFn) -> Drawn:
    graph, may_write, writes = Graph(), draw(st.booleans()), False
    forward = [graph.placeholder(f"weight_{index}") for index in range(3)]
    for node in forward:
        node.meta["val"] = torch.empty(1)
    labels = graph.placeholder("labels")
    steps: list[Node] = []
    for _ in range(draw(st.integers(1, 20))):
        kind = draw(st.sampled_from(("forward", "mixed", "part")))
        if kind == "forward":
            read = draw(st.sampled_from(forward))
            in_place = may_write and draw(st.booleans())
            writes |= in_place
            target = TWICE_IN_PLACE if in_place else TWICE
            forward.append(graph.call_function(target, (read, 2)))
            forward[-1].meta["val"] = read.meta["val"] if in_place else torch.empty(1)
        elif kind == "mixed":
            read_too = st.lists(st.sampled_from([*forward, *steps]), max_size=2)
            steps.append(graph.call_function(mixed, (labels, *draw(read_too))))
        else:
            steps.append(graph.call_function(part, (draw(st.sampled_from([*forward, *steps])),)))
    graph.output(tuple(steps))
    return Drawn(graph, labels, frozenset(steps), writes)


@settings(max_examples=400, deadline=None, database=None)
@given(graphs())
def test_nothing_else_is_computed(drawn: Drawn) -> None:
    before, expected = list(drawn.graph.nodes), drawn.run()
    run_early(drawn.graph, drawn.labels, drawn.steps)
    drawn.graph.lint()
    after = list(drawn.graph.nodes)
    event(f"moved: {after != before}, writes: {drawn.writes}")
    assert set(after) == set(before)
    assert without(after, drawn.steps) == without(before, drawn.steps)
    assert drawn.run() == expected
    if not drawn.writes:
        for step in drawn.steps:
            *_, previous = without(after[: after.index(step)], drawn.steps)
            assert previous == max({drawn.labels} | read_by(step, drawn.steps), key=after.index)


def without(nodes: list[Node], steps: frozenset[Node]) -> list[Node]:
    return [node for node in nodes if node not in steps]


def read_by(step: Node, steps: frozenset[Node]) -> set[Node]:
    """The forward nodes that a step reads, and those that the steps before it do."""
    read = step.all_input_nodes
    return set().union(*(read_by(node, steps) if node in steps else {node} for node in read))


def label_calls(name: str, **settings: object) -> tuple[list[bool], list[str]]:
    """Whether each call of a model's generated graph is a label step, and their names."""
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model(name, num_classes=7, **settings).eval()
    made = generate(labeltrace.trace(model, torch.randn(2, 3, 32, 32)))
    calls = [node for node in made.module.graph.nodes if node.op == "call_function"]
    names = [getattr(node.target, "__module__", "") for node in calls]
    return [name.startswith("labeltrace.label_ops") for name in names], [n.name for n in calls]


def test_labels_that_read_no_activation_run_before_the_first_layer() -> None:
    of_labels, _ = label_calls("convnext_atto", depths=(1, 1, 1, 1), dims=(5, 6, 7, 8))
    assert sum(of_labels) > 10
    assert of_labels == sorted(of_labels, reverse=True)


def test_the_sum_around_attention_follows_it() -> None:
    settings = {"img_size": 32, "patch_size": 16, "depth": 2, "embed_dim": 12, "num_heads": 2}
    _, names = label_calls("vit_tiny_patch16_224", **settings)
    at = names.index("joint")
    assert names[at + 1 : at + 3] == ["y_4", "y_5"]  # its labels, and their sum with those around
