"""Matrix products: linear, matmul and their variants, tensordot, einsum.

Each is stated in index notation; its operation follows from the factors that are contracted.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_lowercase

from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Operand, Operation
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.contraction import contract

ONE = Operand((), ())
"""The other operand of an einsum of one operand."""


@register_rule("aten.linear")
def linear(call: Call) -> Flow:
    """Channel mixing on features, spatial mixing on tokens, aggregation on merged patches."""
    return contract("... i, o i -> ... o", call["input"], call["weight"], call.output)


@register_rule("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot")
def matmul(call: Call) -> Flow:
    """A matrix product; leading axes broadcast."""
    first: Operand = call["self"]
    names = ("other", "mat2", "vec", "tensor")
    second: Operand = next(call[name] for name in names if name in call.arguments)
    left = "k" if len(first.shape) == 1 else "... r k"
    right = "k" if len(second.shape) == 1 else "... k c"
    rows = "" if len(first.shape) == 1 else "r"
    columns = "" if len(second.shape) == 1 else "c"
    leading = "..." if max(len(first.shape), len(second.shape)) > 2 else ""
    result = f"{leading} {rows} {columns}"
    return contract(f"{left}, {right} -> {result}", first, second, call.output)


@register_rule("aten.addmm", "aten.baddbmm", "aten.addbmm")
def addmm(call: Call) -> Flow:
    """A matrix product plus a constant."""
    names = ("mat1", "mat2") if "mat1" in call.arguments else ("batch1", "batch2")
    if call["self"].traced:
        raise LayoutError(f"{call.operator} adds a stream from the image to a product")
    first, second = (call[name] for name in names)
    return contract("... r k, ... k c -> ... r c", first, second, call.output)


@register_rule("aten.tensordot")
def tensordot(call: Call) -> Flow:
    """A product summed over given pairs of axes."""
    first: Operand = call["self"]
    second: Operand = call["other"]
    letters = iter(ascii_lowercase)
    one = [next(letters) for _ in first.shape]
    two = [next(letters) for _ in second.shape]
    for dim, other in zip(call["dims_self"], call["dims_other"], strict=True):
        two[other] = one[dim]
    result = [letter for letter in one + two if (letter in one) != (letter in two)]
    notation = f"{' '.join(one)}, {' '.join(two)} -> {' '.join(result)}"
    return contract(notation, first, second, call.output)


@register_rule("aten.einsum")
def einsum(call: Call) -> Flow:
    """`einsum` of one or two operands."""
    operands: tuple[Operand, ...] = tuple(call["tensors"])
    equation: str = call["equation"].replace(" ", "")
    if len(operands) > 2:
        raise LayoutError(
            f"einsum({equation!r}) of {len(operands)} operands: only products of two operands can "
            "be followed"
        )
    inputs, _, result = equation.partition("->")
    texts = [_letters(text) for text in inputs.split(",")]
    if any(len(set(text)) < len(text) for text in texts):
        raise LayoutError(f"einsum({equation!r}) takes the diagonal of an operand")
    letters = _letters(result) if "->" in equation else _implied(texts)
    if len(operands) == 2:
        notation = f"{', '.join(map(' '.join, texts))} -> {' '.join(letters)}"
        return contract(notation, operands[0], operands[1], call.output)
    flow = contract(f"{' '.join(texts[0])}, -> {' '.join(letters)}", operands[0], ONE, call.output)
    moved = len(letters) == len(texts[0]) and flow.operation is Operation.CHANNEL_MIXING
    return replace(flow, operation=Operation.RELAYOUT) if moved else flow


def _letters(text: str) -> list[str]:
    return re.findall(r"\.\.\.|\w", text)


def _implied(texts: Sequence[Sequence[str]]) -> list[str]:
    """The letters of an implicit result: those that occur once, in alphabetical order."""
    letters = [letter for text in texts for letter in text]
    once = [letter for letter in letters if letter != "..." and letters.count(letter) == 1]
    return ["..."] * ("..." in letters) + sorted(once)
