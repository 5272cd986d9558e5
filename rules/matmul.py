"""Matrix products: linear, matmul and their variants, tensordot, einsum.

Each is stated in index notation; its operation follows from the factors that are contracted.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_lowercase

from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Operand, Operation, ValueFacts
from labeltrace.index_notation.contraction_equation import ContractionEquation
from labeltrace.index_notation.parsing import Names
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.contraction import contract

ONE = Operand((), (), facts=ValueFacts(is_uniform=True))
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
    is_row, is_column = len(first.shape) == 1, len(second.shape) == 1
    equation = ContractionEquation(
        first=("k",) if is_row else ("...", "r", "k"),
        second=("k",) if is_column else ("...", "k", "c"),
        result=(
            *(("...",) if max(len(first.shape), len(second.shape)) > 2 else ()),
            *(() if is_row else ("r",)),
            *(() if is_column else ("c",)),
        ),
    )
    return contract(equation, first, second, call.output)


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
    equation = ContractionEquation(tuple(one), tuple(two), tuple(result))
    return contract(equation, first, second, call.output)


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
        product = ContractionEquation(texts[0], texts[1], letters)
        return contract(product, operands[0], operands[1], call.output)
    flow = contract(ContractionEquation(texts[0], (), letters), operands[0], ONE, call.output)
    moved = len(letters) == len(texts[0]) and flow.operation is Operation.CHANNEL_MIXING
    return replace(flow, operation=Operation.RELAYOUT) if moved else flow


def _letters(text: str) -> Names:
    return tuple(re.findall(r"\.\.\.|\w", text))


def _implied(texts: Sequence[Names]) -> Names:
    """The letters of an implicit result: those that occur once, in alphabetical order."""
    letters = [letter for text in texts for letter in text]
    once = [letter for letter in letters if letter != "..." and letters.count(letter) == 1]
    return ("...",) * ("..." in letters) + tuple(sorted(once))
