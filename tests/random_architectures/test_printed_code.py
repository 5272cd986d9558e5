"""A failing example prints code that can be pasted into a test."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor, nn

from tests.helpers.code_module import Code, source_of
from tests.random_architectures.examples import examples
from tests.random_architectures.inputs import images_of
from tests.random_architectures.modules import Branches
from tests.random_architectures.state import Architecture
from tests.random_architectures.strategy import architectures


def pasted(source: str) -> Callable[..., Any]:
    """The function that printed code ends with, a definition or a lambda."""
    *before, last = ast.parse(source).body
    names: dict[str, Any] = {"torch": torch, "F": F, "nn": nn, "Tensor": Tensor, "Any": Any}
    exec(compile(ast.Module(before, []), "pasted", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "pasted", "eval"), names)
    assert isinstance(last, ast.FunctionDef)
    exec(compile(ast.Module([last], []), "pasted", "exec"), names)
    return names[last.name]


@examples(60)
@given(architectures())
def test_pasted_code_computes_the_same(architecture: Architecture) -> None:
    model, images = architecture.model.eval(), images_of(architecture)
    expected, printed = model(images), repr(model)
    for module in model.modules():
        if isinstance(module, Code):
            assert source_of(module.code).splitlines()[-1].strip() in printed
            module.code = pasted(source_of(module.code))
        if isinstance(module, Branches):
            module.combine = pasted(source_of(module.combine))
    assert torch.equal(model(images).nan_to_num(), expected.nan_to_num())


def add_one(x: Tensor) -> Tensor:
    return x + 1


def test_functions_that_code_calls_are_printed_before_it() -> None:
    dim = 2

    def flipped(x: Tensor) -> Tensor:
        return x.flip(dim)

    first, second = (lambda self, x: flipped(x) * dim), (lambda self, x: F.silu(add_one(x)))
    assert source_of(first) == (
        "dim = 2\n"
        "def flipped(x: Tensor) -> Tensor:\n"
        "    return x.flip(dim)\n"
        "lambda self, x: flipped(x) * dim"
    )
    assert source_of(second) == (
        "def add_one(x: Tensor) -> Tensor:\n    return x + 1\nlambda self, x: F.silu(add_one(x))"
    )
