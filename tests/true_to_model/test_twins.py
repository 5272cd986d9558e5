"""Each case on each engine: the aligned twin ends as the plain one does, call after call."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from labeltrace.errors import LayoutError, UnknownOperatorError
from labeltrace.runtime.engine_choice import EngineName
from tests.true_to_model import cases
from tests.true_to_model.case import CASES
from tests.true_to_model.engines import ENGINES
from tests.true_to_model.twins import check_twins

for file in pkgutil.iter_modules(cases.__path__, f"{cases.__name__}."):
    importlib.import_module(file.name)  # registers the cases of the file

NEEDS_RULES = ("codebook_updated_by_averages",)
"""Their operators have no rule yet, or one that cannot follow them."""

_REFUSED = (UnknownOperatorError, LayoutError, AssertionError)


def _marked(name: str) -> object:
    if name in NEEDS_RULES:
        refused = pytest.mark.xfail(raises=_REFUSED, strict=True)
        return pytest.param(name, marks=refused)
    return name


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [_marked(name) for name in CASES])
def test_twins_are_alike(name: str, engine: EngineName) -> None:
    check_twins(CASES[name], engine)


def test_there_are_as_many_cases_as_there_were() -> None:
    assert len(CASES) >= 275
