"""Factors: what an axis of an activation is made of.

An axis is a sequence of factors, outermost first (row-major). A factor is one of four kinds:

- **position**: tokens, rows, columns, windows; the label varies along it;
- **batch**: the samples; the one position that the prior has as well;
- **repeated**: an expanded axis, all of whose indices have the same label;
- **channel**: features or heads, which have no label of their own.

Weights that may turn out to be half of a linear attention have **opaque** factors until then:
positions or channels, which no view may cut or merge.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import prod

from labeltrace.layout.batch_size import Size
from labeltrace.layout.formatting import size_text


class Kind(Enum):
    """The kind of a factor, see the module's docstring."""

    OPAQUE = "opaque"
    BATCH = "batch"
    POSITION = "position"
    CHANNEL = "channel"
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class Factor:
    """One factor of an axis.

    Attributes:
        size: the number of its indices; one that depends on the batch is a
            `BatchSize`.
        kind: what its indices are.
        field_dim: for positions and the batch, the dimension of the label field; else -1.
    """

    size: Size
    kind: Kind
    field_dim: int = -1

    @property
    def is_position(self) -> bool:
        """Whether the label varies along the factor: a position or the batch."""
        return self.kind in (Kind.POSITION, Kind.BATCH, Kind.OPAQUE)

    def __str__(self) -> str:
        return f"{size_text(self.size)} {self.kind.value}"


Axis = tuple[Factor, ...]
"""The factors of one axis, outermost first; none for an axis of size one without a label."""


def channel(size: Size) -> Axis:
    """An axis of channels."""
    return (Factor(size, Kind.CHANNEL),)


def axis_size(axis: Axis) -> Size:
    """The number of indices of an axis."""
    return prod(factor.size for factor in axis)


def axis_text(axis: Axis) -> str:
    """An axis in words; an axis without factors reads `1`.

    >>> axis_text((Factor(8, Kind.POSITION), Factor(7, Kind.CHANNEL)))
    '8 position * 7 channel'
    """
    return " * ".join(str(factor) for factor in axis) or "1"


def positions(axis: Axis) -> tuple[Factor, ...]:
    """The factors of an axis that the label varies along."""
    return tuple(factor for factor in axis if factor.is_position)


def has_positions(axis: Axis) -> bool:
    """Whether the label varies along the axis."""
    return any(factor.is_position for factor in axis)


def has_channels(axis: Axis) -> bool:
    """Whether the axis has a factor of channels, even one of size one."""
    return any(factor.kind is Kind.CHANNEL for factor in axis)


def is_repeated(axis: Axis) -> bool:
    """Whether an axis has only repeated factors: all its indices have the same label."""
    return bool(axis) and all(factor.kind is Kind.REPEATED for factor in axis)


def pure_positions(axis: Axis) -> bool:
    """Whether the axis has positions and, except for factors of size one, nothing else."""
    return has_positions(axis) and all(f.is_position or f.size == 1 for f in axis)
