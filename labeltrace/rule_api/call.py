"""A call: what a rule sees of one operator in the captured graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labeltrace.flow import Flow, Operand
from labeltrace.layout import BatchSize, Size

Shape = tuple[Size, ...]


class Named(dict[str, Any]):
    """Values by name, whose error for a name that is not there lists those that are."""

    def __init__(self, owner: str, kind: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._owner = owner
        self._kind = kind

    def __missing__(self, name: str) -> Any:
        known = ", ".join(self) or "none at all"
        raise KeyError(
            f"{self._owner} was called without {self._kind} {name!r}; this call has: {known}"
        )


@dataclass(frozen=True, slots=True)
class Call:
    """One operator's call: arguments by their schema names, tensors as `Operand`.

    `operator` is the name under which the rule was found (`"aten.linear"`).  `arguments` has
    every argument of the schema, defaults filled in; `outputs` has a shape for each tensor that
    the operator returns.  Sizes that depend on a dynamic batch are a `labeltrace.layout.BatchSize`,
    which has the arithmetic of integers.

    A call of a module or function that has a rule of its own has the arguments `input0`,
    `input1` ... in the order in which its code reads them; `inner` has the tensors computed
    inside by the names of their nodes (`"softmax"`), `parameters` those of the module by name.
    Both may serve as mixing weights and in custom steps.  `batch` is the number of images.

    A name that is not there is a KeyError that lists those that are.
    """

    operator: str
    arguments: Mapping[str, Any]
    outputs: tuple[Shape, ...]
    inner: Mapping[str, Operand] = field(default_factory=dict)
    parameters: Mapping[str, Operand] = field(default_factory=dict)
    batch: int = 0

    def __post_init__(self) -> None:
        kinds = {"arguments": "argument", "inner": "inner value", "parameters": "parameter"}
        for part, kind in kinds.items():
            object.__setattr__(self, part, Named(self.operator, kind, getattr(self, part)))

    @property
    def output(self) -> Shape:
        """The shape of the only, or first, output."""
        return self.outputs[0]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The argument `name`; `default` where the schema has none or its value is None."""
        value = self.arguments.get(name)
        return default if value is None else value

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Every tensor among the arguments, lists included, in order."""
        return tuple(_operands(self.arguments.values()))

    @property
    def traced(self) -> tuple[Operand, ...]:
        """The operands that come from the image."""
        return tuple(operand for operand in self.operands if operand.traced)

    @property
    def labeled(self) -> tuple[Operand, ...]:
        """The operands that carry labels."""
        return tuple(operand for operand in self.operands if operand.labeled)


def listed(value: Size | Sequence[Any]) -> list[Any]:
    """An argument that may be one number or several, as a list."""
    return [value] if isinstance(value, (int, BatchSize)) else list(value)


def _operands(values: Any) -> Iterator[Operand]:
    for value in values:
        if isinstance(value, Operand):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _operands(value)


Rule = Callable[[Call], Flow | tuple[Flow, ...]]
"""A plain function from a call to a flow for each of its outputs."""
