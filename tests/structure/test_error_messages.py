"""Every error message has a test on its words.

The meta-test reads the sources: each ``raise`` with a message, and each fault that `checking.py`
finds, must share words with a string in these tests that fits no other message.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from labeltrace import CaptureError, LabelError, LayoutError, align, label_ops
from labeltrace.codegen.instructions import instruction
from labeltrace.errors import WeightsUnavailableError
from labeltrace.flow import Flow, LabelField, LabelStep, LabelView, Operand, Operation
from labeltrace.index_notation.mixing_equation import MixingEquation
from labeltrace.layout import (
    Arrangement,
    Factor,
    Kind,
    Layout,
    arrange_by_axis,
    channel,
    renumbered,
)
from labeltrace.model_loading import load_model
from labeltrace.rule_api.call import Call, Rule
from labeltrace.rule_helpers import custom_step, even_mix
from labeltrace.rule_helpers.contraction import contract
from labeltrace.rule_helpers.elementwise import carry

IMAGES = torch.rand(4, 3, 5, 7, generator=torch.Generator().manual_seed(0))
ROOT = Path(__file__).parents[2]
# Packages around the engine, whose messages are told by the tests of their own commands.
AROUND = {"plugins", "report", "training", "zoo_sweep"}
SOURCES = sorted(
    file
    for folder in ("labeltrace", "rules")  # `rglob` follows no links: rules/ is read once
    for file in (ROOT / folder).rglob("*.py")
    if AROUND.isdisjoint(file.relative_to(ROOT).parts)
)


@dataclass(frozen=True)
class Message:
    """A message in the sources; ``text`` has a NUL for each value that is filled in."""

    place: str
    text: str


def text_of(node: ast.AST) -> str:
    """The words of a string expression, a NUL for whatever is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(text_of, parts))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left) + text_of(right)
    return "\0"


def raised_text(node: ast.Raise) -> str | None:
    """The words of a raise; None where it passes an error or a message of other code on."""
    if not isinstance(node.exc, ast.Call) or not node.exc.args:
        return None
    return text_of(node.exc.args[0])


@cache
def messages() -> tuple[Message, ...]:
    found: list[Message] = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            text = None
            if isinstance(node, ast.Raise):
                text = raised_text(node)
            elif isinstance(node, ast.Return) and file.stem == "checking":
                text = text_of(node.value) if node.value is not None else None
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("add_note"):
                text = text_of(node.args[0])
            if text is not None and len("".join(words_of(text))) >= 8:  # else it frames another
                place = f"{file.relative_to(ROOT).as_posix()}:{node.lineno}"
                found.append(Message(place, text))
    assert len(SOURCES) >= 75, "modules have moved to where this test does not look"
    assert len(found) >= 150, "messages are raised in a way that this test does not read"
    return tuple(found)


@cache
def phrases_of_tests() -> frozenset[frozenset[str]]:
    """The words of each short string in the tests that has two or more of them."""
    phrases: set[frozenset[str]] = set()
    tests = ROOT / "tests"
    for file in sorted(tests.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        unsaid = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            said = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if said and id(node) not in unsaid and len(node.value) < 200:
                phrases.add(words_of(node.value))
    return frozenset(phrases)


def words_of(text: str) -> frozenset[str]:
    """Its words of three letters or more, the escapes of patterns left out."""
    return frozenset(re.findall(r"[A-Za-z_]{3,}", re.sub(r"\\[a-zA-Z]", " ", text)))


def test_every_message_has_a_test_on_its_words() -> None:
    """Some string in the tests is about it: most of the string's words are its own, twelve letters
    of them or more, and no other message has them all."""
    found = {message: words_of(message.text) for message in messages()}
    untested = []
    for message, words in found.items():
        others = [other for name, other in found.items() if name is not message]
        shared = {
            phrase & words
            for phrase in phrases_of_tests()
            if len(phrase & words) >= 2 and 2 * len(phrase & words) >= len(phrase)
        }
        long = [both for both in shared if sum(map(len, both)) >= 12]
        if not any(all(not both <= other for other in others) for both in long):
            untested.append(f"{message.place}: {message.text}".replace("\0", "…"))
    assert not untested, "\n" + "\n".join(untested)


# Calls that positions cannot be followed through. -------------------------------------------------


def swapped(x: Tensor) -> Tensor:
    """Rows in the place of channels."""
    return x.permute(0, 2, 1, 3)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).mT


def keys_times_values(x: Tensor) -> Tensor:
    """(B, 4, 3): four features of keys, three channels of values."""
    keys = torch.cat((tokens(x), tokens(x)[..., :1]), -1)
    return keys.mT @ tokens(x)


def queries(x: Tensor, *sizes: int) -> Tensor:
    return tokens(x)[..., :1].expand(-1, -1, prod(sizes)).unflatten(2, sizes)


MASK = torch.tensor([True, False, True, True, False])
BOXES = torch.tensor([[0.0, 1.0, 1.0, 3.0, 3.0]])


def masked_in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, MASK] = x.flip(2)[:, :, MASK]
    return y


def scores_in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, 0] = x.softmax(-1)[:, :, 0]
    return y


def paired(x: Tensor) -> Tensor:
    """Every sample with every other."""
    mean = x.mean((1, 2, 3))
    pairs = (mean[:, None] + mean[None])[..., None].expand(-1, -1, 3)
    return pairs.permute(1, 2, 0) + mean


def chosen() -> int:
    """A number that torch does not know before the model runs."""
    number: Any = torch.ones(2).long().sum().item()
    torch._check(number >= 0)
    torch._check(number <= 5)
    return number


def repeated_twice(x: Tensor) -> Tensor:
    return x.mean((1, 3))[:, None, :, None].expand(-1, 2, 5, 3).flatten(1)


# Each with the words of the message that it must end in; images are (B, 3, 5, 7).
REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "aten.addmm adds a stream from the image to a product": lambda x: torch.addmm(
        x.mean((1, 2)), x.mean((1, 2)), torch.ones(7, 7)
    ),
    "takes the diagonal of an operand": lambda x: torch.einsum("bchh->bch", x[..., :3, :3]),
    "of 3 operands: only products of two operands can be followed": lambda x: torch.einsum(
        "bchw,bchw,bchw->bhw", x, x, x
    ),
    "a grouped convolution contracts an axis that has positions": lambda x: F.conv2d(
        swapped(x)[:, :4], torch.ones(6, 2, 1, 1), groups=2
    ),
    "without a batch axis: (3 channel, 5 position, 7 position); keep the batch": lambda x: F.conv2d(
        x[0], torch.ones(2, 3, 1, 1)
    ),
    "aten.conv2d with a kernel computed from the image": lambda x: F.conv2d(
        x, x.mean(0, keepdim=True)
    ),
    "aten.conv_transpose2d needs channels in axis 1 and a constant kernel": lambda x: (
        F.conv_transpose2d(swapped(x), torch.ones(5, 2, 2, 2))
    ),
    "a strided convolution of one tap over (": lambda x: F.conv2d(
        swapped(x), torch.ones(2, 5, 1, 1), stride=2
    ),
    "a convolution changes the positions of mixing weights": lambda x: (
        F.conv2d(x.softmax(-1), torch.ones(3, 3, 2, 2)) @ x.mT[:, :, :6]
    ),
    "aten.conv2d slides over an activation with positions in its channel axis": lambda x: F.conv2d(
        swapped(x), torch.ones(2, 5, 2, 2)
    ),
    "aten.index_put puts scores among content; keep the two apart": lambda x: x.index_put(
        [torch.tensor([1])], x[:1].softmax(-1)
    ),
    "how much is written depends on the values of tensors, which a captured graph does not know": (
        masked_in_place
    ),
    "a view of content is overwritten by mixing weights; use a fresh tensor": scores_in_place,
    "boxes are cut out of (": lambda x: torchvision.ops.roi_align(swapped(x), BOXES, 1),
    "padding of an axis of positions and channels: 3 channel * 35 position": lambda x: F.pad(
        x.flatten(1), (1, 1)
    ),
    "aten.layer_norm takes several tensors from the image: input, weight": lambda x: F.layer_norm(
        x, (7,), x.mean((0, 1, 2))
    ),
    "an axis of space is not made of positions: 3 channel": lambda x: F.avg_pool2d(swapped(x), 2),
    "7 position); give it one number and the dim to repeat along": lambda x: x.repeat_interleave(2),
    "aten.addcmul adds a product of two streams from the image; write the product and the sum": (
        lambda x: torch.addcmul(x, x, x)
    ),
    "a roll of the flattened activation moves channels into positions": lambda x: x.roll(1),
    "one index of an axis of positions and channels is taken: 3 channel": lambda x: x.flatten(1)[
        :, 0
    ],
    "an axis of positions and channels moves: 3 channel": lambda x: x.flatten(1).roll(1, 1),
    "positions and channels of one axis are contracted with mixing weights": lambda x: (
        x.flatten(1).softmax(-1)[:, None] @ x.flatten(1)[:, :, None]
    ),
    "keys times values, summed over tokens, are combined with another tensor": lambda x: (
        queries(x, 4) @ (keys_times_values(x) + x.mean((2, 3))[:, None])
    ),
    "a product of keys and values, summed over positions, is contracted with something": (
        lambda x: queries(x, 4) @ (keys_times_values(x) @ torch.ones(3, 2))
    ),
    "mul = aten.mul multiplies them with a stream that has other positions or channels": lambda x: (
        x.mean(1).flatten(1).softmax(-1)[:, :, None] * x.mean(1).flatten(1)[:, None]
    ),
    "an axis of keys times values has been split or joined": lambda x: torch.einsum(
        "bni,bi->bn", queries(x, 12), keys_times_values(x).flatten(1)
    ),
    "queries are contracted with an axis that is not the keys' alone": lambda x: torch.einsum(
        "bnij,bij->bn", queries(x, 4, 3), keys_times_values(x)
    ),
    "whether u0 <= 7 is known at run time alone": lambda x: x.narrow(3, chosen(), 2),
    "where an axis is cut is computed from values: at u0": lambda x: x.select(3, chosen()),
    "labels need the size u0, which depends on the values of the model's": lambda x: x.roll(
        chosen(), 3
    ),
    "constants are joined to the samples of the batch, B batch: such a row belongs to": lambda x: (
        F.pad(x.permute(1, 2, 3, 0), (0, 1))
    ),
    "constants are joined to an axis along which images follow one another: a new row": lambda x: (
        F.pad(x.permute(1, 0, 2, 3).flatten(1, 2).flip(1), (0, 0, 0, 1))
    ),
    "positions are repeated in two ways along an output: 2 repeated * 5 position": repeated_twice,
    "a dynamic batch stands in two dimensions of one label field: the model pairs": paired,
}


class Function(nn.Module):
    """A function of the images as a model, whose batch is free."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


@pytest.mark.parametrize("words", REFUSED)
def test_calls_that_cannot_be_followed(words: str) -> None:
    model = Function(REFUSED[words])
    model(IMAGES)  # the model itself is sound
    with pytest.raises(LayoutError) as caught:
        align(model, IMAGES, engine="captured")
    assert words in str(caught.value)


REFUSED_AS_RECORDED: dict[str, Callable[[Tensor], Tensor]] = {
    "a mask selects from a constant, or repeats the activation": (
        lambda x: torch.ones(7).masked_select(x[0, 0, 0] > 0)
    ),
    "how often the entries of a constant are repeated comes from the image": (
        lambda x: torch.ones(7).repeat_interleave((x[0, 0, 0] > 0).long(), 0)
    ),
}


@pytest.mark.parametrize("words", REFUSED_AS_RECORDED)
def test_runs_that_cannot_be_followed(words: str) -> None:
    aligned = align(Function(REFUSED_AS_RECORDED[words]), engine="recorded")
    with pytest.raises(LayoutError) as caught:
        aligned(IMAGES, torch.full((4, 2, 5, 7), 0.5))
    assert words in str(caught.value)


# Rules that return nonsense. ----------------------------------------------------------------------


def flow_with(changes: Callable[[Call], dict[str, Any]], start: Rule) -> Rule:
    """A rule whose flow is that of another rule with some fields changed."""

    def rule(call: Call) -> Flow:
        flow = start(call)
        assert isinstance(flow, Flow)
        return replace(flow, **changes(call))

    return rule


def elsewhere(call: Call) -> Operand:
    """The call's operand as if it had a label that the call does not have."""
    return replace(call["input0"], field=LabelField("elsewhere"))


def whole_mean(call: Call) -> Flow:
    return even_mix(call["input0"], call.output, channels=(1,))


def across_rows(call: Call) -> Flow:
    weights = call.parameters["weight"]
    return contract("b c h w, h p -> b c p w", call["input0"], weights, call.output)


def other_labels(call: Call) -> dict[str, Any]:
    return {"source": LabelView(elsewhere(call), arrange_by_axis(call["input0"].traced_layout))}


NONSENSE: dict[str, Rule] = {
    "carries the label of input0, which the call does not have": lambda call: carry(
        elsewhere(call), call.output
    ),
    "reads the labels of input0, which the call does not have": flow_with(other_labels, whole_mean),
    "arranges the labels of (B batch, 3 channel, 5 position, 7 position) as": flow_with(
        lambda call: {"source": LabelView(call["input0"], Arrangement((2, 3), ((0,), (1,))))},
        whole_mean,
    ),
    "computes a field of (B, 5, 7) for the positions of": flow_with(
        lambda call: {
            "layout": renumbered([*call["input0"].traced_layout.axes[:2], channel(5), channel(7)])
        },
        lambda call: custom_step(lambda labels: labels, call["input0"], call.output, channels=(1,)),
    ),
    "names 3 axes in 'o i j, b i x -> b o x' for weights that have 2": flow_with(
        lambda call: {"equation": MixingEquation.parse("o i j, b i x -> b o x")}, across_rows
    ),
    "names 2 dimensions in 'o i, b i -> b o' for labels of": flow_with(
        lambda call: {"equation": MixingEquation.parse("o i, b i -> b o")}, across_rows
    ),
    "by weights of (3, 3), which differ along": flow_with(
        lambda call: {"weights": replace(call.parameters["weight"], shape=(3, 3))}, across_rows
    ),
    "axis 1 of the input mixes positions and channels (3 channel * 35 position)": lambda call: (
        custom_step(
            lambda labels: labels,
            replace(
                call["input0"],
                layout=renumbered(
                    [
                        (*call["input0"].traced_layout.axes[0],),
                        (Factor(3, Kind.CHANNEL), Factor(35, Kind.POSITION)),
                    ]
                ),
            ),
            call.output,
            channels=(1,),
        )
    ),
}


class Rows(nn.Module):
    """A matrix along the rows, which a rule may take as one step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        return (x.mT @ self.weight).mT


@pytest.mark.parametrize("words", NONSENSE)
def test_rules_that_return_nonsense(words: str) -> None:
    with pytest.raises(LayoutError) as caught:
        align(nn.Sequential(Rows()), IMAGES, rules={Rows: NONSENSE[words]})
    assert words in str(caught.value)


def test_a_constant_has_no_layout() -> None:
    rule = {Rows: lambda call: carry(call.parameters["weight"], call.output)}
    with pytest.raises(TypeError, match="argument weight is a constant and has no layout"):
        align(nn.Sequential(Rows()), IMAGES, rules=rule)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda labels: labels.mean(1), "; its rule promised 3 dimensions and the 2 sources last"),
        (lambda labels: labels[..., :1], "; the last dimension must be the 2 sources"),
        (lambda labels: 3, "returned int; its rule promised 3 dimensions"),
    ],
)
def test_label_functions_that_return_nonsense(
    result: Callable[[Tensor], Tensor], words: str
) -> None:
    def rule(call: Call) -> Flow:
        return custom_step(result, call["input0"], call.output, channels=(1,))

    aligned = align(nn.Sequential(Rows()), rules={Rows: rule})
    with pytest.raises(LabelError, match=r"the label function .*<lambda> \(.*:\d+\)") as caught:
        aligned(IMAGES, torch.full((4, 2, 5, 7), 0.5))
    assert words in str(caught.value)


# Faults inside the library, and models that keep what no graph can read. --------------------------


def test_what_only_a_fault_of_the_library_can_raise() -> None:
    with pytest.raises(TypeError, match="a label function was called without a tensor"):
        label_ops.average([], [])
    with pytest.raises(ValueError, match="unknown padding mode 'nonsense'"):
        label_ops.pad(torch.ones(2, 5, 1), torch.ones(2, 1), [(0, 0), (1, 1)], "nonsense")
    with pytest.raises(TypeError, match="no label function serves LabelStep"):
        instruction(LabelStep(operation=Operation.POINTWISE, layout=Layout(())))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x.relu()


class Printing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.ops.aten._print("called")
        return x.relu()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Counting(), "the model writes calls as a side effect of its forward (buffer mutation)"),
        (Printing(), "the model uses token token, which the captured graph cannot read at call"),
    ],
    ids=["buffer", "token"],
)
def test_a_capture_with_side_effects(
    model: nn.Module, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exports that hand side effects in and out, as functional graphs do."""

    def functional(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs).run_decompositions({})

    original = torch.export.export
    monkeypatch.setattr(torch.export, "export", functional)
    with pytest.raises(CaptureError) as caught:
        align(model, IMAGES, engine="captured")
    assert words in str(caught.value)


def test_trained_weights_that_nobody_has() -> None:
    untrained = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(WeightsUnavailableError, match="timm has no trained weights for it"):
        load_model(untrained, pretrained=True)
    with pytest.raises(
        WeightsUnavailableError, match="is a factory; load trained weights in the factory"
    ):
        load_model("tests.helpers.command_line_models:Tiny", pretrained=True)
