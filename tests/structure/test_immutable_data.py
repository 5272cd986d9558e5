"""What is known of calls, layouts and flows is immutable, small, and written with names."""

from __future__ import annotations

import re
import sys
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from labeltrace import flow

# What caches what it has computed has a dictionary to keep it in.
CACHING = {"Trace"}
# What stands for one particular thing, and is not another one that says the same.
IDENTITIES = {"CallRecord", "Recomputed"}


PACKAGES = "index_notation|layout|flow|rule_api|rule_helpers|rules|label_ops|capture|tracing"


def data_classes() -> dict[str, Any]:
    """The data classes of these packages, all of which importing labeltrace imports."""
    modules = [
        module
        for name, module in sys.modules.items()
        if re.match(rf"labeltrace\.({PACKAGES})\b", name)
    ]
    found = (value for module in modules for value in vars(module).values())
    return {kind.__name__: kind for kind in found if isinstance(kind, type) and is_dataclass(kind)}


DATA = data_classes()


def test_the_data_classes_are_found() -> None:
    assert len(DATA) >= 60, "modules have moved to where this test does not look"


@pytest.mark.parametrize("name", DATA)
def test_data_is_immutable(name: str) -> None:
    kind = DATA[name]
    assert kind.__dataclass_params__.frozen
    assert ("__slots__" in vars(kind)) is (name not in CACHING)
    assert kind.__dataclass_params__.eq is (name not in IDENTITIES)


@pytest.mark.parametrize("name", [n for n in DATA if issubclass(DATA[n], flow.Flow)])
def test_flows_are_written_with_names(name: str) -> None:
    assert all(field.kw_only for field in fields(DATA[name]))
