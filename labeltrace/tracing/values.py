"""What the walk knows of the result of one call: its state is one of three."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from labeltrace.flow import (
    NOTHING_KNOWN,
    ComputedTensor,
    LabelField,
    TensorSource,
    ValueFacts,
)
from labeltrace.layout import Layout
from labeltrace.tracing.problems import Problem


@dataclass(frozen=True, eq=False, slots=True)
class Recomputed(ComputedTensor):
    """A call computed once more from other inputs: mixing weights as they are without dropout.

    Attributes:
        call: the name of the call.
        substitutes: what it reads instead of some inputs, by their names.
    """

    call: str
    substitutes: Mapping[str, TensorSource]


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of one tensor that comes from the image.

    Attributes:
        layout: what its axes are made of.
        field: its label field; None for mixing weights.
        source: where labels read its values if it is mixing weights.
        facts: what is known of its values.
        summands: the number of streams that it is the sum of, as long as that sum can be part of a
            larger one.
        as_weights: the same tensor read as mixing weights; None where it is none.
    """

    layout: Layout
    field: LabelField | None
    source: TensorSource
    facts: ValueFacts = NOTHING_KNOWN
    summands: int = 1
    as_weights: Value | None = None


@dataclass(frozen=True, slots=True)
class Traced:
    """The results of a call whose positions are known, None for one that is constant."""

    values: tuple[Value | None, ...]

    @property
    def first(self) -> Value | None:
        """The only, or first, result."""
        return self.values[0]


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing is known of the results, and an error says so: the call, or one before it, failed."""


@dataclass(frozen=True, slots=True)
class PositionsUnknown:
    """The results come from the image, but no layout can express their positions.

    That is an error only if something else than a sum with mixing weights reads them; see
    `labeltrace.tracing.unknown_positions`. `problems` says why the positions are unknown.
    """

    problems: tuple[Problem, ...]


ValueState = Traced | Failed | PositionsUnknown
"""What is known of the results of one call."""

CONSTANT: Final = Traced((None,))
"""The state of what does not come from the image."""
