"""The examples in the docstrings of the layout package."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from labeltrace import layout

MODULES = [f"labeltrace.layout.{found.name}" for found in pkgutil.iter_modules(layout.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


def test_the_hard_functions_have_examples() -> None:
    finder = doctest.DocTestFinder()
    found = {
        test.name
        for name in MODULES
        for test in finder.find(importlib.import_module(name))
        if test.examples
    }
    assert {"labeltrace.layout.views.view", "labeltrace.layout.broadcasting.align_axes"} <= found
