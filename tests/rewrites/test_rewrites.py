"""Rewrites: labels stay equal, and the label programs are short."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import timm
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import labeltrace
from labeltrace.codegen.generate import Generated, generate
from labeltrace.layout import Arrangement
from labeltrace.rewrites.fuse_relayouts import composed
from labeltrace.tracing.trace import Trace
from tests.helpers.code_module import from_expression
from tests.helpers.families import Family, aligned_family, every_family, example
from tests.random_architectures.examples import examples
from tests.random_architectures.inputs import images_of, random_labels
from tests.random_architectures.state import Architecture
from tests.random_architectures.strategy import architectures


def as_traced(trace: Trace) -> Trace:
    return trace


def labels_of(
    trace: Trace, made: Generated, model: nn.Module, images: Tensor, given: Tensor
) -> Any:
    """The labels of all outputs; dropout is drawn alike each time."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    state = [tensors[entry.name] for entry in trace.capture.state]
    torch.manual_seed(0)
    with torch.no_grad():
        results = made.module(*state, *trace.capture.constants, images, given)
    return results[len(trace.outputs) :]


def check(trace: Trace, model: nn.Module, images: Tensor, given: Tensor) -> str:
    """Labels are equal with rewrites and early scheduling, and without both.

    Returns the simplified program.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("labeltrace.codegen.generate.run_early", lambda *_: None)
        plain = generate(trace, as_traced)
    simplified = generate(trace)
    expected, found = (
        labels_of(trace, made, copy.deepcopy(model), images, given) for made in (plain, simplified)
    )
    for one, other in zip(expected, found, strict=True):
        if one is not None:
            torch.testing.assert_close(other, one, atol=1e-6, rtol=0)
    return simplified.label_code


@every_family
def test_families_keep_their_labels(family: Family) -> None:
    images, given = example(family)
    aligned = aligned_family(family)
    aligned.eval()
    check(aligned.trace(images), aligned.module, images, given)


class Reading(nn.Module):
    """A model of whose output's positions only some are read, as a classifier reads a token."""

    def __init__(self, model: nn.Module, channel_dim: int, index: Callable[[int], Any]) -> None:
        super().__init__()
        self.model = model
        self.channel_dim = channel_dim
        self.index = index

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.model(images)
        channel_dim = self.channel_dim % outputs.dim()
        for dim in reversed(range(1, outputs.dim())):
            if dim != channel_dim:
                outputs = outputs[(*[slice(None)] * dim, self.index(outputs.shape[dim]))]
        return outputs


INDEXINGS: dict[str, Callable[[int], Any]] = {
    "first": lambda size: 0,
    "last": lambda size: -1,
    "a few": lambda size: slice(size // 3, size // 3 + max(size // 3, 1)),
    "every third": lambda size: slice(None, None, 3),
}


@examples(8)
@given(architectures(), st.sampled_from(sorted(INDEXINGS)))
def test_random_architectures_keep_their_labels(architecture: Architecture, reading: str) -> None:
    images, given_ = images_of(architecture), random_labels(architecture, 3)
    model = architecture.model.eval()
    reader = Reading(model, architecture.channel_dim, INDEXINGS[reading]).eval()
    check(labeltrace.trace(reader, images), reader, images, given_)


@dataclass(frozen=True)
class Reads:
    """Tensor code that reads little of what it computes, and lines of the program for its label."""

    text: str
    lines: tuple[str, ...]
    parts: dict[str, Any] = field(default_factory=dict)


def tokens(text: str) -> str:
    return f"(lambda t: {text})(x.flatten(2).mT)"


def attention(arguments: str, read: str) -> str:
    return tokens(f"F.scaled_dot_product_attention({arguments})[:, {read}]")


# 6 rows of 5 columns; 30 tokens.
READS = {
    "rows of a matrix": Reads(
        "self.layer(x)[..., 2]",
        (
            "rows = cut(p_layer_weight, 0, 2, 3)",
            "y_1 = mix(y, rows, 'o i, a c i -> a c o')",
        ),
        {"layer": nn.Linear(5, 7)},
    ),
    "mixed along another axis": Reads(
        "self.layer(x)[:, :, 2]",
        (
            "y_1 = cut(y, 1, 2, 3)",
            "y_2 = mix(y_1, p_layer_weight, 'o i, a c i -> a c o')",
        ),
        {"layer": nn.Linear(5, 7)},
    ),
    "queries": Reads(
        attention("t, t, t", "7"),
        (
            "rows = cut(m_t, 1, 7, 8)",
            "y_2 = attend(y_1, rows, m_t, 'h q k, h k -> h q')",
        ),
    ),
    "queries of a mask": Reads(
        attention("t, t, t, self.mask", "7:9"),
        (
            "rows_1 = cut(b_mask, 0, 7, 9)",
            "y_2 = attend(y_1, rows, m_t, 'h q k, h k -> h q', mask=rows_1)",
        ),
        {"mask": torch.arange(900.0).reshape(30, 30).cos()},
    ),
    "first causal queries": Reads(
        attention("t, t, t, is_causal=True", ":5"),
        (
            "rows = cut(m_t, 1, 0, 5)",
            "y_2 = attend(y_1, rows, m_t, 'h q k, h k -> h q', is_causal=True)",
        ),
    ),
    "later causal queries": Reads(
        attention("t, t, t, is_causal=True", "7"),
        ("y_2 = attend(y_1, m_t, m_t, 'h q k, h k -> h q', is_causal=True)",),
    ),
    "probabilities": Reads(
        tokens("((t @ t.mT).softmax(-1) @ t)[:, 7]"),
        (
            "rows = cut(softmax, 1, 7, 8)",
            "y_2 = mix(y_1, rows, 'a r k, a k -> a r', normalized=True)",
        ),
    ),
    "probabilities after a dropout that drops nothing": Reads(
        tokens("(F.dropout((t @ t.mT).softmax(-1), 0.0, True) @ t)[:, 7]"),
        (
            "rows = cut(dropout, 1, 7, 8)",
            "y_2 = mix(y_1, rows, 'a r k, a k -> a r', normalized=True)",
        ),
    ),
    "linear attention": Reads(
        tokens("(t.relu() @ (t.relu().mT @ t))[:, 7]"),
        (
            "rows = cut(relu, 1, 7, 8)",
            "y_2 = mix_linear(y_1, rows, m_t_1, 'a r k, a k b, a b -> a r', k=2, c=2)",
        ),
    ),
    "sum": Reads(
        "(x + x.roll(1, 2))[..., 2]",
        (
            "y_1 = cut(y, 2, 2, 3)",
            "y_2 = roll(y_1, [1], [1])",
            "y_3 = average([y_1, y_2])",
        ),
    ),
    "joined along": Reads(
        "torch.cat([x, x.flip(2)], 3)[..., 6:8]",
        (
            "y_1 = cut(y, 2, 1, 3)",
            "y_2 = flip(y_1, [1])",
            "y_3 = write_output(y_2, [-1, -1, -1], 1)",
        ),
    ),
    "joined along another axis": Reads(
        "torch.cat([x, x.flip(2)], 3)[:, :, 3]",
        (
            "y_2 = cut(y, 1, 3, 4)",
            "y_3 = cut(y_1, 1, 3, 4)",
            "y_4 = join([y_2, y_3], [5, 5], 2)",
        ),
    ),
    "mean": Reads(
        "x.mean(3)[:, :, 2]",
        (
            "y_1 = cut(y, 1, 2, 3)",
            "y_2 = aggregate(y_1, 1)",
        ),
    ),
    "slice of a slice": Reads(
        "x[:, :, 1:5][:, :, 2:3]",
        (
            "y_1 = cut(y, 1, 3, 4)",
            "y_2 = write_output(y_1, [-1, -1, -1], 1)",
        ),
    ),
    "padded along another axis": Reads(
        "F.pad(x, (1, 1))[:, :, 2]",
        (
            "y_1 = cut(y, 1, 2, 3)",
            "y_2 = pad(y_1, prior, [[0, 0], [0, 0], [1, 1]])",
        ),
    ),
    "indexed along another axis": Reads(
        "x[..., self.index][:, :, 2]",
        (
            "y_1 = cut(y, 1, 2, 3)",
            "y_2 = take(y_1, 2, b_index)",
        ),
        {"index": torch.tensor([4, 0, 0])},
    ),
    "repeated along another axis": Reads(
        "x.repeat(1, 1, 1, 2)[:, :, 2]",
        (
            "y_1 = cut(y, 1, 2, 3)",
            "y_2 = repeat(y_1, [1, 1, 2], False)",
        ),
    ),
}


@pytest.mark.parametrize("name", READS)
def test_what_is_not_read_is_not_computed(name: str) -> None:
    reads = READS[name]
    model = from_expression(reads.text, **reads.parts).eval()
    program = checked(model, *tokens_of(6, 5))
    assert set(reads.lines) <= set(lines_of(program)), program


def tokens_of(*size: int) -> tuple[Tensor, Tensor]:
    """Images (3, 2, *size) and a label image."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(3, 3, *size, generator=generator).square()
    return torch.randn(3, 2, *size, generator=generator), labels / labels.sum(1, keepdim=True)


def checked(model: nn.Module, images: Tensor, labels: Tensor) -> str:
    return check(labeltrace.trace(model, images), model, images, labels)


def lines_of(program: str) -> list[str]:
    """The program's lines without the notes on where each comes from."""
    return [line.split("  #")[0].strip() for line in program.splitlines()]


def test_a_shared_kernel_is_normalized_once() -> None:
    code = "self.layer(self.layer(x).relu())"
    program = checked(from_expression(code, layer=nn.Conv2d(2, 2, 3, padding=1)), *tokens_of(6, 5))
    assert lines_of(program) == [
        "def label_graph(labels, p_layer_weight):",
        "y = read_image(labels, [6, 5])",
        "weights = kernel(p_layer_weight)",
        "y_1 = convolve(y, weights, [1, 1], [[1, 1], [1, 1]], [1, 1])",
        "y_2 = convolve(y_1, weights, [1, 1], [[1, 1], [1, 1]], [1, 1])",
        "y_3 = write_output(y_2, [-1, -1, -1], 1)",
        "return y_3",
    ]


def test_program_of_a_vision_transformer() -> None:
    """The last block's label is that of the class token alone."""
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model(
            "vit_tiny_patch16_224", img_size=8, patch_size=4, depth=2, in_chans=2, num_classes=7
        ).eval()
    program = checked(model, *tokens_of(8, 8))
    assert lines_of(program) == [
        "def label_graph(labels, getitem, getitem_1, getitem_2, getitem_3, getitem_4):",
        "y = read_image(labels, [8, 8])",
        "prior = prior_of(y)",
        "y_1 = pool(y, [4, 4], [4, 4], [0, 0], [1, 1])",
        "y_2 = relayout(y_1, merge=[-1, 4])",
        "y_3 = join([prior, y_2], [1, 4], 1)",
        "out, y_4 = attention_with_labels("
        "y_3, getitem, getitem_1, getitem_2, 'a h q k, a k -> a q')",
        "y_5 = average([y_3, y_4])",
        "rows = cut(getitem_3, 2, 0, 1)",
        "y_6 = attend(y_5, rows, getitem_4, 'a h q k, a k -> a q')",
        "y_7 = cut(y_5, 1, 0, 1)",
        "y_8 = average([y_7, y_6])",
        "y_9 = select(y_8, 1, 0)",
        "return y_9",
    ]


def test_runs_of_relayouts_become_one() -> None:
    code = "F.avg_pool2d(x.permute(0, 1, 3, 2).reshape(3, 2, 3, 10), 1, 1)"
    program = checked(from_expression(code), *tokens_of(6, 5))
    assert lines_of(program)[2:4] == [
        "y_2 = relayout(y, order=[0, 2, 1], merge=[3, 3, 10])",
        "y_3 = pool(y_2, [1, 1], [1, 1], [0, 0], [1, 1])",
    ]


@st.composite
def nested_arrangements(draw: st.DrawFn) -> tuple[Arrangement, Arrangement]:
    """Two arrangements, one after the other, whose splits may nest or not."""

    def arrangement(sizes: list[int]) -> Arrangement:
        split = [f for size in sizes for f in draw(st.sampled_from(FACTORS[size]))]
        slots = draw(st.permutations(range(len(split))))
        cuts = sorted(draw(st.lists(st.integers(0, len(slots)), max_size=3)))
        bounds = [0, *cuts, len(slots)]
        groups = tuple(tuple(slots[a:b]) for a, b in itertools.pairwise(bounds))
        return Arrangement(tuple(split), groups)

    first = arrangement([6, 4, 1])
    return first, arrangement(list(first.shape))


FACTORS = {
    size: [(size,), *((a, size // a) for a in range(1, size + 1) if size % a == 0)]
    for size in range(1, 25)
}


@settings(max_examples=300, deadline=None, database=None)
@given(nested_arrangements())
def test_composed_arrangements(arrangements: tuple[Arrangement, Arrangement]) -> None:
    first, second = arrangements
    field = torch.arange(24).reshape(6, 4, 1)
    one_by_one = rearranged(rearranged(field, first), second)
    both = composed(first, second)
    nests = both is not None
    event(f"nests: {nests}")
    if both is not None:
        assert both.shape == second.shape
        assert torch.equal(rearranged(field, both), one_by_one)


def rearranged(field: Tensor, arrangement: Arrangement) -> Tensor:
    order = [slot for group in arrangement.groups for slot in group]
    return field.reshape(arrangement.sizes).permute(order).reshape(arrangement.shape)
