"""Products of a stream with a matrix: what they are follows from the factors contracted."""

from labeltrace.call import Call
from labeltrace.contraction import contract
from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Operand
from labeltrace.registry import rule


@rule("aten.linear")
def linear(call: Call) -> Flow:
    """Channel mixing on features, spatial mixing on tokens, aggregation on merged patches."""
    return contract("... i, o i -> ... o", call["input"], call["weight"], call.output)


@rule("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot")
def matmul(call: Call) -> Flow:
    """A matrix product over batches."""
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


@rule("aten.addmm", "aten.baddbmm", "aten.addbmm")
def matmul_with_bias(call: Call) -> Flow:
    """A matrix product plus a constant."""
    names = ("mat1", "mat2") if "mat1" in call.arguments else ("batch1", "batch2")
    if call["self"].traced:
        raise LayoutError(f"{call.operator} adds a stream from the image to a product")
    first, second = (call[name] for name in names)
    return contract("... r k, ... k c -> ... r c", first, second, call.output)


@rule("aten.einsum")
def einsum(call: Call) -> Flow:
    """``einsum`` of two operands."""
    operands = call["tensors"]
    equation: str = call["equation"].replace(" ", "")
    if len(operands) != 2 or "->" not in equation:
        raise LayoutError(
            f"einsum({equation!r}) of {len(operands)} operands: only products of two operands with "
            "a result spelled out (`->`) can be followed"
        )
    inputs, result = equation.split("->")
    notation = ", ".join(_spaced(text) for text in inputs.split(",")) + " -> " + _spaced(result)
    return contract(notation, operands[0], operands[1], call.output)


def _spaced(text: str) -> str:
    return " ".join(text.replace("...", ".")).replace(".", "...")
