"""Which globals and attributes a function names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from labeltrace.model_state.code_reads import reads_of

config: Any = SimpleNamespace()
table: dict[str, Any] = {}


def reading(self: Any) -> Any:
    """Reads much."""
    from tests.model_state import changing_models
    from tests.model_state.changing_models import SCALE as scale

    def inside() -> Any:
        return config.inner.rate + changing_models.INNER

    total = config.depth + table["depth"] + self.first.second + getattr(self, "third")  # noqa: B009
    return [total * scale * item.fourth for item in self.items] + [inside()]


def writing() -> None:
    global table
    table = {}


def test_globals_with_their_attributes() -> None:
    found = reads_of(reading.__code__)
    assert {("config", "depth"), ("config", "inner", "rate"), ("table",)} <= {*found.chains}
    assert reads_of(writing.__code__).chains == (("table",),)


def test_attributes_and_strings_that_may_be_attributes() -> None:
    found = reads_of(reading.__code__)
    assert found.own == {"first", "items"}
    assert {"second", "fourth", "INNER"} <= found.others
    assert "third" in found.strings and "Reads much." not in found.strings


class Base:
    def method(self) -> Any:
        return None


class Derived(Base):
    def method(self) -> Any:
        return super().method(), [self.inner for _ in range(3)]


def test_super_is_the_object_itself() -> None:
    found = reads_of(Derived.method.__code__)
    assert {"method", "inner"} <= found.own and not found.others & {"method", "inner"}


def test_imports_inside_a_function() -> None:
    assert reads_of(reading.__code__).imports == (
        ("tests.model_state", ("changing_models",)),
        ("tests.model_state.changing_models", ("SCALE",)),
    )


def test_code_is_read_once() -> None:
    assert reads_of(reading.__code__) is reads_of(reading.__code__)
