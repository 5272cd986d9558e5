"""Each class of label step is known wherever steps are told apart by class.

A new class fails here until it has a label function, a description, a decision on whether it can be
computed for some rows, and until a model below has a step of it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import labeltrace
from labeltrace.codegen.instructions import Instruction, instruction
from labeltrace.codegen.row_priors import kept_dimensions
from labeltrace.flow import Flow, LabelStep, LabelView, OneSourceStep, Operation
from labeltrace.layout import Layout
from labeltrace.report.descriptions import describe_step
from labeltrace.rewrites.index_slice import IndexSlice
from labeltrace.rewrites.slice_step import sliced_step
from labeltrace.rewrites.steps import with_labels
from labeltrace.rule_api.call import Call
from labeltrace.rule_helpers import custom_step
from labeltrace.tracing.ablation import moves_labels, without_mixing
from labeltrace.tracing.trace import Trace


def concrete_subclasses(parent: type[LabelStep]) -> Iterator[type[LabelStep]]:
    """The classes of the library without subclasses, which are those that steps have."""
    for child in parent.__subclasses__():
        if not is_of_the_library(child):
            continue
        deeper = list(concrete_subclasses(child))
        yield from deeper or (child,)


def is_of_the_library(found: type[LabelStep]) -> bool:
    """Not of a test, and not what `dataclass(slots=True)` has replaced by another class."""
    in_library = found.__module__.startswith("labeltrace.")
    return in_library and getattr(sys.modules[found.__module__], found.__name__) is found


STEP_CLASSES = sorted(set(concrete_subclasses(LabelStep)), key=lambda found: found.__name__)

every_class = pytest.mark.parametrize("step_class", STEP_CLASSES, ids=lambda found: found.__name__)


class Reversed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(2)


def reversed_rule(call: Call) -> Flow:
    return custom_step(lambda labels: labels.flip(1), call["input0"], call.output, channels=(1,))


class EveryStep(nn.Module):
    """Outputs that take a step of each class, for images (B, 2, 6, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.convolution = nn.Conv2d(2, 2, 3)
        self.transposed = nn.ConvTranspose2d(2, 2, 2, 2)
        self.recurrent = nn.GRU(2, 3, num_layers=2, batch_first=True)
        self.reversed = Reversed()
        self.register_buffer("boxes", torch.tensor([[1.0, 0.0, 0.0, 3.0, 2.0]]))
        self.register_buffer("index", torch.tensor([3, 0, 0]))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        tokens = x.flatten(2).mT
        positive = tokens.relu()
        outputs, states = self.recurrent(tokens)
        return (
            self.linear(x),
            F.scaled_dot_product_attention(tokens, tokens, tokens),
            positive @ (positive.mT @ tokens),
            self.convolution(x),
            self.transposed(x),
            F.interpolate(x, scale_factor=2, mode="bilinear"),
            outputs,
            states,
            self.reversed(x),
            F.avg_pool2d(x, 2),
            F.adaptive_avg_pool2d(x, (4, 3)),
            x.mean(3),
            x + x.flip(2),
            F.fold(F.unfold(x, 3, padding=1), (6, 4), 3, padding=1),
            x[..., 1:],
            x[..., 1],
            x.repeat(1, 1, 2, 1),
            x.roll(1, 2),
            x[..., self.index],
            F.pad(x, (1, 1)),
            torch.cat([x, x.flip(2)], 2),
            x.mT.reshape(3, 2, 3, 8),
            tokens.topk(5, 1)[0],
            torchvision.ops.roi_align(x, self.boxes, 2),
            tokens.index_put([self.index[:1], self.index], x[0, :, 0, :3].mT),
        )


@functools.cache
def trace() -> Trace:
    aligned = labeltrace.align(EveryStep().eval(), rules={Reversed: reversed_rule})
    return aligned.trace(torch.randn(3, 2, 6, 4))


def step_of(step_class: type[LabelStep]) -> LabelStep:
    found = next((step for step in trace().steps.values() if type(step) is step_class), None)
    assert found is not None, f"add an output to EveryStep that takes a {step_class.__name__}"
    return found


def test_the_classes_are_found() -> None:
    assert len(STEP_CLASSES) >= 24
    assert OneSourceStep not in STEP_CLASSES


@every_class
def test_it_has_a_label_function(step_class: type[LabelStep]) -> None:
    assert isinstance(instruction(step_of(step_class)), (Instruction, LabelView))


@every_class
def test_it_says_which_rows_it_keeps_apart(step_class: type[LabelStep]) -> None:
    step = step_of(step_class)
    if isinstance(step, OneSourceStep):
        before, after = step.source.arrangement.shape, step.field_sizes
        for dim, place in kept_dimensions(step).items():
            assert after[place] == before[dim]


@every_class
def test_it_has_a_description(step_class: type[LabelStep]) -> None:
    assert describe_step(step_of(step_class)).endswith(".")


@every_class
def test_it_is_sliced_or_not(step_class: type[LabelStep]) -> None:
    """Along each of its dimensions; the step for some rows has the sizes of these."""
    step = step_of(step_class)
    for dim, size in enumerate(step.field_sizes):
        cut = IndexSlice(dim, 0, max(size // 2, 1))
        found = sliced_step(step, cut, lambda labels, _: labels)
        assert found is None or found.field_sizes == cut.of(step.field_sizes)


@every_class
def test_its_labels_are_replaced(step_class: type[LabelStep]) -> None:
    step = step_of(step_class)
    read: list[LabelView] = []
    assert with_labels(step, lambda labels: read.append(labels) or labels) == step
    assert tuple(read) == step.labels


@every_class
def test_it_is_ablated_or_stays(step_class: type[LabelStep]) -> None:
    """Steps that mix become views where the number of positions allows it; others stay."""
    step = step_of(step_class)
    field = next(field for field, other in trace().steps.items() if other is step)
    ablated = without_mixing(trace(), lambda _: False).steps[field]
    assert ablated.field_sizes == step.field_sizes
    if not moves_labels(step) and step.operation is not Operation.RESIDUAL:
        assert ablated is step


# A class that somebody forgot to enter.


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten(OneSourceStep):
    operation: Operation = Operation.RELAYOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgottenSources(LabelStep):
    operation: Operation = Operation.RELAYOUT


def test_an_unknown_class_is_an_error() -> None:
    source = next(step for step in trace().steps.values() if isinstance(step, OneSourceStep)).source
    step = Forgotten(layout=Layout(()), source=source)
    with pytest.raises(TypeError, match="no label function serves Forgotten"):
        instruction(step)
    with pytest.raises(TypeError, match="Forgotten has no description; add a case to labeltrace"):
        describe_step(step)
    words = r"whether Forgotten\w* can be computed for some rows is not decided; add a case"
    for unknown in (step, ForgottenSources(layout=Layout(()))):
        with pytest.raises(TypeError, match=words):
            sliced_step(unknown, IndexSlice(0, 0, 1), lambda labels, _: labels)
    with pytest.raises(TypeError, match="which rows Forgotten keeps apart is not decided; add"):
        kept_dimensions(step)
    with pytest.raises(TypeError, match="reads labels in a way that no rewrite knows"):
        with_labels(ForgottenSources(layout=Layout(())), lambda labels: labels)
