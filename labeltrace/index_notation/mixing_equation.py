"""How matrices mix a label field: `"b h q k, b k -> b q"`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from labeltrace.index_notation.parsing import (
    Axes,
    Names,
    axes_text,
    check_names,
    flattened,
    parse_equation,
    plain_names,
)

Sizes = tuple[tuple[str, int], ...]
"""Sizes of names, those in parentheses."""


@dataclass(frozen=True, slots=True)
class MixingEquation:
    """The axes of weights, of a label field and of the field that they mix it to, by name.

    The K sources of the fields, last of all, have no name.  What a name means follows from where it
    is.  In `"b h q k, b k -> b q"` (attention), `b` is the batch, each `h` is a matrix, `q` its
    rows and `k` its columns.

    Examples:
        >>> equation = MixingEquation.parse("(b h) q k, b k -> b q", sizes=(("h", 3),))
        >>> equation.heads, equation.rows, equation.columns
        (('h',), ('q',), ('k',))
        >>> str(equation)
        '(b h) q k, b k -> b q'

    Attributes:
        weights: the axes of the weights.  One that is made of several factors has several names.
        labels: the dimensions of the labels.
        result: the dimensions of the mixed labels.
        sizes: the sizes of all but one of the names of each axis that is made of several factors.
        batch: names of weights, labels and result: each index has matrices of its own.
        heads: names that the weights alone have: the matrices along them are averaged (eq. 9).
        rows: names of weights and result, which the labels lack.
        columns: names of weights and labels, which the result lacks: they are mixed away.
        repeats: names that the weights alone have, in one axis with a column: that many columns
            have one label, and their weights are added.
        free: names that the weights lack.
    """

    weights: Axes
    labels: Names
    result: Names
    sizes: Sizes = ()
    # Found once for all: the label functions read them on every call.
    batch: Names = field(init=False, repr=False, compare=False)
    heads: Names = field(init=False, repr=False, compare=False)
    rows: Names = field(init=False, repr=False, compare=False)
    columns: Names = field(init=False, repr=False, compare=False)
    repeats: Names = field(init=False, repr=False, compare=False)
    free: Names = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        labels, result, weights = self.labels, self.result, self.weight_names
        columns = tuple(n for n in weights if n in labels and n not in result)
        own = tuple(n for n in weights if n not in labels and n not in result)
        with_columns = {
            n for axis in self.weights if not set(columns).isdisjoint(axis) for n in axis
        }
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "heads", tuple(n for n in own if n not in with_columns))
        object.__setattr__(self, "repeats", tuple(n for n in own if n in with_columns))
        object.__setattr__(self, "batch", tuple(n for n in weights if n in labels and n in result))
        object.__setattr__(
            self, "rows", tuple(n for n in weights if n not in labels and n in result)
        )
        object.__setattr__(self, "free", tuple(n for n in labels if n not in weights))

    @classmethod
    def parse(cls, text: str, sizes: Sizes = ()) -> Self:
        """Read `"(b h) q k, b k -> b q"`.

        Raises:
            NotationError: the text is not of that form, labels or result have parentheses, a tensor
                has a name twice, or the result has one that is in neither weights nor labels.
        """
        weights, label_axes, result_axes = parse_equation(text, operands=2)
        labels = plain_names(label_axes, "labels", text)
        result = plain_names(result_axes, "result", text)
        check_names((weights, label_axes), result, text)
        return cls(weights, labels, result, sizes)

    @property
    def weight_names(self) -> Names:
        """The names of the weights' factors, in order."""
        return flattened(self.weights)

    def __str__(self) -> str:
        """The text that `parse` reads; it does not have the sizes."""
        return f"{axes_text(self.weights)}, {' '.join(self.labels)} -> {' '.join(self.result)}"
