"""A rule's case: a small model that calls one operator, and its labels by other means.

Every cell of every image is a source of its own, so that labels say where each element of an output
comes from: ``provenance[element, source]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

import labeltrace
from labeltrace.capture.node_info import operator_names
from labeltrace.rules import BUILT_IN
from labeltrace.runtime.engine_choice import EngineName
from labeltrace.tracing.trace import Trace
from tests.helpers.code_module import Code, from_expression

Truth = Callable[["RuleCase"], Sequence[Tensor | None]]
"""The provenance (*shape, sources) of each output in float64; None where it carries no label."""


def values(*shape: int, seed: int = 0) -> Tensor:
    """Random values of both signs, none of them near zero, the same each time."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn + 0.1 * drawn.sign()


@dataclass(frozen=True)
class RuleCase:
    """One operator, called with some arguments.

    operator: the name under which its rule is filed, ``"aten.linear"``.
    code: tensor code over ``x``, the images, and ``self``, which holds ``parts``.
    truth: how to know where its labels come from, without labeltrace.
    parts: tensors that the code reads.
    shape: that of the images, the batch first.
    channel_dim: the axis of the images that has their channels.
    approximate: whether the rule is to say that it is an approximation.
    note: what is particular about the parts' values, where sizes do not tell it.
    recorded: whether the model is to be recorded as it runs: some size depends on values.
    """

    operator: str
    code: str
    truth: Truth
    parts: Mapping[str, Tensor] = field(default_factory=dict, compare=False)
    shape: tuple[int, ...] = (2, 3, 5, 7)
    channel_dim: int = 1
    approximate: bool = False
    note: str = ""
    recorded: bool = False

    def __str__(self) -> str:
        return f"{self.operator}: {self.arguments}"

    @property
    def arguments(self) -> str:
        """The code with the shapes of what it reads, and the note."""
        settings = {"x": self.shape} | {n: tuple(p.shape) for n, p in self.parts.items()}
        shapes = ", ".join(f"{name} {shape}" for name, shape in settings.items())
        note = f" ({self.note})" if self.note else ""
        return f"{self.code} with {shapes}{note}, channels in {self.channel_dim}"

    def model(self) -> Code:
        return from_expression(self.code, **self.parts).eval()

    def images(self) -> Tensor:
        return values(*self.shape, seed=1)

    def numbers(self) -> Tensor:
        """The number of each element's cell, with an axis of size one for the channels."""
        cells = [size for dim, size in enumerate(self.shape) if dim != self.channel_dim]
        numbers = torch.arange(math.prod(cells), dtype=torch.float64).reshape(cells)
        return numbers.unsqueeze(self.channel_dim)

    def sources(self) -> int:
        return math.prod(self.shape) // self.shape[self.channel_dim]

    def label_image(self) -> Tensor:
        """The identity: (B, sources, *sizes)."""
        numbers = self.numbers().squeeze(self.channel_dim).long()
        return torch.eye(self.sources())[numbers].movedim(-1, 1)

    def prior(self, image: int) -> Tensor:
        """Every source of one image alike."""
        labels = self.label_image()[image].flatten(1).double()
        return labels.mean(1)


@dataclass(frozen=True)
class Refusal:
    """Code that the library refuses to follow, with words of the error that says so."""

    code: str
    says: str
    parts: Mapping[str, Tensor] = field(default_factory=dict, compare=False)
    shape: tuple[int, ...] = (2, 3, 5, 7)
    channel_dim: int = 1

    def __str__(self) -> str:
        return f"{self.code} with x {self.shape}, channels in {self.channel_dim}"


@dataclass(frozen=True)
class Fault:
    """What is wrong with a case; ``missing`` if its operator was not even reached."""

    case: RuleCase
    message: str
    missing: bool = False


def fault_of(case: RuleCase) -> Fault | None:
    """Compare the labels of a case with the truth; None where they agree."""
    model = case.model()
    engine: EngineName = "recorded" if case.recorded else "auto"
    aligned = labeltrace.align(model, channel_dim=case.channel_dim, engine=engine)
    torch.manual_seed(0)
    outputs, labels = aligned(case.images(), case.label_image())
    torch.manual_seed(0)
    if not _same(outputs, model(case.images())):
        return Fault(case, "the forward pass is not that of the plain model")
    trace = aligned.trace(case.images())
    if case.operator not in served(trace):
        return Fault(case, f"the captured graph has {', '.join(served(trace))}", missing=True)
    if bool(trace.approximate) is not case.approximate:
        return Fault(case, f"approximations: {[node.approximation for node in trace.approximate]}")
    truths = case.truth(case)
    leaves, label_leaves = _leaves(outputs), _leaves(labels)
    if not len(truths) == len(leaves) == len(label_leaves):
        return Fault(case, f"{len(leaves)} outputs, {len(truths)} truths")
    for index, (output, label, truth) in enumerate(zip(leaves, label_leaves, truths, strict=True)):
        message = _difference(output, label, truth, case)
        if message:
            return Fault(case, f"output {index}: {message}")
    return None


def served(trace: Trace) -> list[str]:
    """The names under which the rules of a graph's operators are filed."""
    calls = [operator_names(n) for n in trace.capture.graph.nodes if n.op == "call_function"]
    return [next((n for n in names if n in BUILT_IN.operators), names[-1]) for names in calls]


def _difference(output: Tensor, label: Tensor | None, truth: Tensor | None, case: RuleCase) -> str:
    if label is None or truth is None:
        return "" if label is truth else f"label {label is not None}, truth {truth is not None}"
    found = per_element(label, output.shape, case.sources())
    if found.shape != truth.shape:
        return f"labels are {tuple(found.shape)}, the truth is {tuple(truth.shape)}"
    sums = label.sum(list(label.shape).index(case.sources()))
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-5) or bool((label < 0).any()):
        return "rows are not distributions"
    off = (found - truth).abs().max().item()
    return "" if off < 1e-5 else f"labels are off by {off:.3g}"


def per_element(label: Tensor, shape: Sequence[int], sources: int) -> Tensor:
    """The label of an output of ``shape`` for each of its elements: (*shape, sources)."""
    assert list(label.shape).count(sources) == 1, "choose sizes that differ from the sources"
    dim = list(label.shape).index(sources)
    last = label.movedim(dim, -1).double()
    if label.dim() == len(shape):  # the sources stand in the place of the channels
        last = last.unsqueeze(dim)
    own = [last.shape[axis] for axis in range(len(shape))]
    expected = [1 if label.dim() == len(shape) and a == dim else n for a, n in enumerate(shape)]
    assert own == expected, f"a label {tuple(label.shape)} for an output {tuple(shape)}"
    return last.expand(*shape, sources)


def _leaves(value: object) -> list[Tensor | None]:
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _leaves(item)]
    assert value is None or isinstance(value, Tensor)
    return [value]


def _same(first: object, second: object) -> bool:
    pairs = zip(_leaves(first), _leaves(second), strict=True)
    return all(torch.equal(one.nan_to_num(), two.nan_to_num()) for one, two in pairs)
