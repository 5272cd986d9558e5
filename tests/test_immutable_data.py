"""What is known of calls, layouts and flows is immutable, small, and written with names."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

import labeltrace
from labeltrace import flow, rules

# What caches what it has computed has a dictionary to keep it in.
CACHING = {"Trace"}
# What stands for one particular thing, and is not another one that says the same.
IDENTITIES = {"Replay"}


def data_classes() -> dict[str, Any]:
    names = [info.name for info in pkgutil.iter_modules(labeltrace.__path__, "labeltrace.")]
    names += [info.name for info in pkgutil.iter_modules(rules.__path__, "labeltrace.rules.")]
    modules = [importlib.import_module(name) for name in names if not name.endswith("__main__")]
    found = [value for module in modules for value in vars(module).values() if is_dataclass(value)]
    return {value.__name__: value for value in found if isinstance(value, type)}


DATA = {
    name: kind
    for name, kind in data_classes().items()
    if kind.__module__.removeprefix("labeltrace.").split(".")[0]
    in {"call", "flow", "layout", "node", "pending", "reading", "regions", "registry", "rules"}
    | {"mixing_plan", "sides", "tracing"}
}


@pytest.mark.parametrize("name", DATA)
def test_data_is_immutable(name: str) -> None:
    kind = DATA[name]
    assert kind.__dataclass_params__.frozen
    assert ("__slots__" in vars(kind)) is (name not in CACHING)
    assert kind.__dataclass_params__.eq is (name not in IDENTITIES)


@pytest.mark.parametrize("name", [n for n in DATA if issubclass(DATA[n], flow.Flow)])
def test_flows_are_written_with_names(name: str) -> None:
    assert all(field.kw_only for field in fields(DATA[name]))
