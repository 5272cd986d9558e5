"""From an operator without a rule to aligned labels, with nothing but the words of the error."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace
from labeltrace.flow import Flow
from labeltrace.rule_api.call import Call
from labeltrace.rule_helpers import custom_step, even_mix
from labeltrace.rule_helpers.elementwise import carry
from labeltrace.tracing.rule_stubs import UnknownCall, rule_stubs

BATCH, CHANNELS, ROWS, COLUMNS, SOURCES = 4, 3, 7, 11, 2


class Chain(nn.Module):
    """A convolution, then functions one after the other."""

    def __init__(self, *functions: Callable[[Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(CHANNELS, 5, 1)
        self.functions = functions

    def forward(self, images: Tensor) -> Any:
        value: Any = self.stem(images)
        for function in self.functions:
            value = function(value)
        return value


def images() -> Tensor:
    return torch.rand(BATCH, CHANNELS, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))


def label_image() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(BATCH, SOURCES, ROWS, COLUMNS, generator=generator).softmax(1)


@pytest.fixture(scope="module", autouse=True)
def operators() -> Iterator[None]:
    """Operators of every kind that a library may bring along."""
    names: dict[str, tuple[str, Callable[..., Any]]] = {
        "squash": ("(Tensor x) -> Tensor", lambda x: x / (1 + x.abs())),
        "twist.int": ("(Tensor x, int n) -> Tensor", lambda x, n: x * n),
        "twist.Tensor": ("(Tensor other, Tensor y) -> Tensor", lambda other, y: y * other.sum()),
        "late": ("(Tensor scale, Tensor x) -> Tensor", lambda scale, x: x * scale.sum()),
        "halves": ("(Tensor x) -> (Tensor, Tensor)", lambda x: (x[:, ::2].clone(), -x)),
        "pair": ("(Tensor x) -> (Tensor, Tensor)", lambda x: (x * 2, -x)),
        "copies": ("(Tensor x, int n) -> Tensor[]", lambda x, n: [x * i for i in range(1, n + 1)]),
        "merge": ("(Tensor[] pieces) -> Tensor", sum),
        "tokens": ("(Tensor x) -> Tensor", lambda x: x.flatten(2).mT.clone()),
        "pool": ("(Tensor x) -> Tensor", lambda x: x.mean((2, 3))),
        "carry": ("(Tensor x) -> Tensor", lambda x: x * 2),
        "labeltrace": ("(Tensor x) -> Tensor", lambda x: x * 2),
        "model": ("(Tensor x) -> Tensor", lambda x: x * 2),
        "double_": ("(Tensor(a!) x) -> Tensor(a!)", lambda x: x.mul_(2)),
        "write": ("(Tensor(a!) x) -> ()", lambda x: [x.mul_(2)].clear()),
        "fused": (
            "(Tensor x, Tensor? bias=None, int[2] size=1, float p=0.5, *, bool train=False, "
            "str mode='a') -> Tensor",
            lambda x, bias=None, size=1, p=0.5, train=False, mode="a": x * p,
        ),
    }
    libraries = [torch.library.Library(name, "DEF") for name in ("missing", "missing_too")]
    for name, (schema, function) in names.items():
        libraries[0].define(name + schema)
        libraries[0].impl(name, function, "CompositeExplicitAutograd")
    libraries[1].define("squash(Tensor x) -> Tensor")
    libraries[1].impl("squash", lambda x: x * 3, "CompositeExplicitAutograd")
    yield
    for library in libraries:
        library._destroy()


class _Operators:
    """``torch.ops.missing``, looked up when a model runs."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: getattr(torch.ops.missing, name)(*args, **kwargs)


ops = _Operators()


def in_place(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        x = x + 0
        function(x)
        return x

    return run


def error_of(model: nn.Module) -> str:
    with pytest.raises(labeltrace.UnknownOperatorError) as caught:
        labeltrace.align(model, images())
    return str(caught.value)


def stub_in(message: str) -> str:
    """What a reader pastes: all that follows the first empty line."""
    return textwrap.dedent(message.split("\n\n", 1)[1])


def pasted(model: nn.Module, message: str) -> dict[str, Any]:
    names: dict[str, Any] = {"model": model}
    exec(stub_in(message), names)
    return names


KINDS: dict[str, tuple[Callable[[Tensor], Any], ...]] = {
    "one": (lambda x: ops.squash(x),),
    "overloads": (lambda x: ops.twist(x, 3), lambda x: ops.twist(torch.ones(2), x)),
    "one_overload": (lambda x: torch.ops.missing.twist.int(x, 3),),
    "constant_first": (lambda x: ops.late(torch.ones(3), x),),
    "several_outputs": (lambda x: ops.pair(x), lambda xs: xs[0] + xs[1]),
    "outputs_of_two_shapes": (lambda x: ops.halves(x), lambda xs: xs[0].mean(1) + xs[1].mean(1)),
    "list_of_outputs": (
        lambda x: [*ops.copies(x, 2), *ops.copies(x, 3)],
        lambda xs: torch.cat(xs, 1),
    ),
    "list_of_arguments": (lambda x: ops.merge([torch.ones(()), x, x.flip(2)]),),
    "tokens": (lambda x: ops.tokens(x), lambda x: ops.squash(x), lambda x: x.mean(1)),
    "without_positions": (lambda x: ops.pool(x), lambda x: ops.squash(x)),
    "name_of_the_stub": (
        lambda x: ops.carry(x),
        lambda x: ops.labeltrace(x),
        lambda x: ops.model(x),
    ),
    "two_of_one_name": (lambda x: ops.squash(x), lambda x: torch.ops.missing_too.squash(x)),
    "in_place": (in_place(lambda x: ops.double_(x)),),
    "nothing_returned": (in_place(lambda x: ops.write(x)),),
    "many_arguments": (lambda x: ops.fused(x, size=[2, 3], p=0.2, train=True),),
    "weights": (
        lambda x: F.softmax(ops.squash(x.flatten(2) @ x.flatten(2).mT), -1) @ x.flatten(2),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_stub_runs_as_it_stands(kind: str) -> None:
    model = Chain(*KINDS[kind])
    names = pasted(model, error_of(model))
    outputs, labels = names["aligned"](images(), label_image())
    assert torch.equal(outputs, model(images()))
    for leaf in (labels,) if isinstance(labels, Tensor) else labels:
        sources = leaf.movedim(1, -1) if leaf.shape[1] == SOURCES else leaf
        torch.testing.assert_close(sources.sum(-1), torch.ones(sources.shape[:-1]))
        assert (leaf >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_under_a_stub_says_so(kind: str) -> None:
    """Nobody has confirmed a stub: it shows among the approximations until somebody does."""
    model = Chain(*KINDS[kind])
    rules = pasted(model, error_of(model))["rules"]
    trace = labeltrace.trace(model, images(), rules=rules)
    told = {node.operator for node in trace.approximate if node.approximation.startswith("a stub")}
    assert told == set(rules)


@pytest.mark.parametrize(
    "late",
    [lambda x: ops.late(torch.ones(3), x), lambda x: ops.late(x.mean((2, 3)), x)],
    ids=["constant first", "label of another shape first"],
)
def test_a_point_wise_stub_leaves_labels_alone(late: Callable[[Tensor], Tensor]) -> None:
    model = Chain(late, lambda x: ops.squash(x))
    names = pasted(model, error_of(model))
    assert torch.equal(names["aligned"](images(), label_image())[1], label_image())


def test_a_stub_that_changes_shapes_mixes_evenly() -> None:
    model = Chain(lambda x: ops.tokens(x), lambda x: ops.squash(x))
    labels = pasted(model, error_of(model))["aligned"](images(), label_image())[1]
    mean = label_image().mean((2, 3))
    torch.testing.assert_close(labels, mean[:, None].expand(BATCH, ROWS * COLUMNS, SOURCES))


@pytest.mark.parametrize("name", ["lambda", "class", "2d", "__add__", "carry", "labeltrace"])
def test_a_stub_has_a_name_of_its_own(name: str) -> None:
    """Names that torch itself cannot put into a graph today are no trouble either."""
    call = UnknownCall(f"missing.{name}", ("x",), '["x"]', (2, 3), (1,), ((2, 3),))
    names: dict[str, Any] = {"model": Chain()}
    exec(rule_stubs([call]), names)
    operator, rule = names["rules"].popitem()
    assert operator == f"missing.{name}"
    assert callable(rule)
    assert names["carry"] is carry
    assert names["labeltrace"] is labeltrace


# Which operators, where, and what waits for them.


def block(x: Tensor) -> Tensor:
    return ops.squash(x).relu() + x


def test_each_operator_is_told_once_with_what_waits_for_it() -> None:
    model = Chain(block, lambda x: ops.tokens(x), block, torch.tanh)
    message = error_of(model)
    # conv2d; squash, relu, add; tokens; squash, relu, add; tanh.
    assert message.startswith("The model has 2 operators without a rule:\n")
    assert "no rule for missing.squash: 2 calls; 6 of 9 operators wait for it (67%)" in message
    assert "no rule for missing.tokens: 1 call; 4 of 9 operators wait for it (44%)" in message
    assert message.count("no rule for") == 2
    assert message.count("called with (B, 5, 7, 11) -> (B, 5, 7, 11)\n") == 1
    assert message.count("called with (B, 77, 5) -> (B, 77, 5)\n") == 1
    assert message.count("def ") == 2
    where = (
        rf"in \(the model itself\) \(Chain\), {re.escape(__file__)}:\d+: value = function\(value\)"
    )
    assert len(re.findall(where, message)) == 3


@pytest.mark.parametrize(
    ("calls", "tail"), [(8, ""), (9, "and 1 more call of it"), (11, "and 3 more calls of it")]
)
def test_many_calls_of_one_operator_are_counted(calls: int, tail: str) -> None:
    layers = [Chain(block) for _ in range(calls)]
    for layer in layers:
        layer.stem = nn.Conv2d(3, 3, 1)
    message = error_of(nn.Sequential(*layers))
    assert f"no rule for missing.squash: {calls} calls; " in message
    assert message.count("called with") == 8
    assert [f"in {index} (Chain)" in message for index in range(calls)] == [
        index < 8 for index in range(calls)
    ]
    assert re.findall("and .* more calls? of it", message) == [tail] * bool(tail)


def test_what_reads_a_written_tensor_waits() -> None:
    """conv2d, add, write and relu: relu reads the tensor, and not what the operator returns."""
    message = error_of(Chain(in_place(lambda x: ops.write(x)), torch.relu))
    assert "no rule for missing.write: 1 call; 1 of 4 operators waits for it (25%)" in message


def test_what_is_one_step_under_a_rule_counts_once() -> None:
    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu().tanh().sigmoid()

    model = Chain(lambda x: ops.squash(x), Whole())
    model.whole = model.functions[1]
    rules = {Whole: lambda call: carry(call["input0"], call.output)}
    with pytest.raises(labeltrace.UnknownOperatorError, match="1 of 3 operators waits"):
        labeltrace.align(model, images(), rules=rules)


def test_other_faults_are_told_beside_operators_without_a_rule() -> None:
    def cut(x: Tensor) -> Tensor:
        return x.flatten(1)[:, 1:].relu()

    message = error_of(Chain(lambda x: (ops.squash(x), cut(x))))
    assert message.startswith("The model has 1 operator without a rule and 1 node that cannot be")
    assert "cuts through an axis of positions and channels" in message
    assert message.index("no rule for") < message.index("cuts through")


# Errors in a rule's own code.


def with_rule(rule: Callable[[Call], Any]) -> Callable[[], object]:
    model = Chain(lambda x: ops.fused(x))
    return lambda: labeltrace.align(model, images(), rules={"missing.fused": rule})


def wrong_name(call: Call) -> Flow:
    return carry(call["input"], call.output)


def wrong_type(call: Call) -> Flow:
    return carry(call["x"], call.output + 1)  # type: ignore[operator]


def wrong_attribute(call: Call) -> Flow:
    return carry(call["x"].first, call.output)


def constant_operand(call: Call) -> Flow:
    return carry(call["weight"], call.output)


FAULTS = {
    wrong_name: (
        KeyError,
        "missing.fused was called without argument 'input'; this call has: x, bias, ",
    ),
    wrong_type: (TypeError, "can only concatenate tuple"),
    wrong_attribute: (AttributeError, "'Operand' object has no attribute 'first'"),
}


@pytest.mark.parametrize("rule", FAULTS, ids=lambda rule: rule.__name__)
def test_an_error_in_a_rule_names_the_rule_and_the_node(rule: Callable[[Call], Flow]) -> None:
    kind, words = FAULTS[rule]
    with pytest.raises(kind) as caught:
        with_rule(rule)()
    assert words in str(caught.value)
    (note,) = caught.value.__notes__
    line = rule.__code__.co_firstlineno
    assert f"raised in the rule {rule.__name__} ({__file__}:{line}) for fused = missing.fus" in note
    assert "with the arguments x, bias, size, p, train, mode -> (B, 5, 7, 11)" in note
    assert re.search(rf"in .*\(Chain\), {re.escape(__file__)}:\d+: ", note)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda call: call["x"], "Conv2d was called without argument 'x'; this call has: input0"),
        (
            lambda call: call.inner["softmax"],
            "Conv2d was called without inner value 'softmax'; this call has: conv",
        ),
        (
            lambda call: call.parameters["w"],
            "was called without parameter 'w'; this call has: weight, bias",
        ),
    ],
    ids=["argument", "inner", "parameter"],
)
def test_names_that_a_module_does_not_have(rule: Callable[[Call], Flow], words: str) -> None:
    with pytest.raises(KeyError, match=words) as caught:
        labeltrace.align(Chain(), images(), rules={nn.Conv2d: rule})
    (note,) = caught.value.__notes__
    assert "for conv2d = Conv2d" in note
    assert "in stem (Conv2d)" in note


def test_a_call_of_an_operator_has_no_inner_values() -> None:
    with pytest.raises(KeyError, match="without inner value 'softmax'; this call has: none at all"):
        with_rule(lambda call: call.inner["softmax"])()


def test_an_error_in_a_label_function_names_it() -> None:
    def fails(labels: Tensor) -> Tensor:
        return labels.no_such_method()

    model = Chain(lambda x: ops.squash(x))
    rules = {
        "missing.squash": lambda call: custom_step(fails, call["x"], call.output, channels=(1,))
    }
    aligned = labeltrace.align(model, rules=rules)
    with pytest.raises(AttributeError, match="no_such_method") as caught:
        aligned(images(), label_image())
    line = fails.__code__.co_firstlineno
    notes = "\n".join(caught.value.__notes__)
    assert f"fails ({__file__}:{line}), called with labels of shape (4, 7, 11, 2)" in notes


def test_an_even_mix_needs_the_batch() -> None:
    model = Chain(lambda x: ops.squash(x.flatten(0, 1)))
    rules = {"missing.squash": lambda call: even_mix(call["x"], (5, 7), channels=(1,))}
    with pytest.raises(labeltrace.LayoutError, match=r"even_mix finds no batch: .* becomes"):
        labeltrace.align(model, images(), rules=rules)
