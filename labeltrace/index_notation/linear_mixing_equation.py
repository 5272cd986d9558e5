"""How queries and keys mix a label field in linear time: `"b h q d, b h k d, b k -> b q"`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from labeltrace.index_notation.mixing_equation import Sizes
from labeltrace.index_notation.parsing import (
    Axes,
    Names,
    axes_text,
    check_names,
    flattened,
    parse_equation,
    plain_names,
)


@dataclass(frozen=True, slots=True)
class LinearMixingEquation:
    """The axes of queries, keys, a label field and the field that they mix it to, by name.

    The K sources of the fields, last of all, have no name.

    Examples:
        >>> equation = LinearMixingEquation.parse("b h q d, b h k d, b k -> b q", heads=("h",))
        >>> equation.columns
        ('k',)

    Attributes:
        query: the axes of the queries.  One that is made of several factors has several names.
        key: the axes of the keys.
        labels: the dimensions of the labels.
        result: the dimensions of the mixed labels.
        heads: the names whose matrices are averaged (eq. 9).
        sizes: the sizes of all but one of the names of each axis that is made of several factors.
    """

    query: Axes
    key: Axes
    labels: Names
    result: Names
    heads: Names = ()
    sizes: Sizes = ()

    @classmethod
    def parse(cls, text: str, heads: Names = (), sizes: Sizes = ()) -> Self:
        """Read `"b h q d, b h k d, b k -> b q"`.

        Raises:
            NotationError: the text is not of that form, labels or result have parentheses, a tensor
                has a name twice, or the result has one that no operand has.
        """
        query, key, label_axes, result_axes = parse_equation(text, operands=3)
        labels = plain_names(label_axes, "labels", text)
        result = plain_names(result_axes, "result", text)
        check_names((query, key, label_axes), result, text)
        return cls(query, key, labels, result, heads, sizes)

    @property
    def query_names(self) -> Names:
        """The names of the queries' factors, in order."""
        return flattened(self.query)

    @property
    def key_names(self) -> Names:
        """The names of the keys' factors, in order."""
        return flattened(self.key)

    @property
    def columns(self) -> Names:
        """The names of labels that are mixed away."""
        return tuple(name for name in self.labels if name not in self.result)

    def __str__(self) -> str:
        """The text that `parse` reads; it has neither heads nor sizes."""
        operands = (axes_text(self.query), axes_text(self.key), " ".join(self.labels))
        return f"{', '.join(operands)} -> {' '.join(self.result)}"
