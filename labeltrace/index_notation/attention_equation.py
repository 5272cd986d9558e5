"""A mixing equation whose weights are attention maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from labeltrace.errors import NotationError
from labeltrace.index_notation.mixing_equation import MixingEquation
from labeltrace.index_notation.parsing import Axes, Names, flattened


@dataclass(frozen=True, slots=True)
class AttentionEquation:
    """What the names of a mixing equation are to maps (..., queries, keys) of attention.

    Attributes:
        equation: the mixing equation, whose weights are the maps.
        batch: names of the maps' leading axes that the result has as well.
        heads: names of the maps' leading axes that are averaged.
        rows: names of the axis of queries that the result has.
        heads_in_rows: names of the axis of queries that are averaged.
        keys: names of the axis of keys; those that the labels lack count keys of equal labels.
        free: names that only labels and result have.
    """

    equation: MixingEquation
    # Found once for all: the label functions read them on every call.
    batch: Names = field(init=False, repr=False, compare=False)
    heads: Names = field(init=False, repr=False, compare=False)
    rows: Names = field(init=False, repr=False, compare=False)
    heads_in_rows: Names = field(init=False, repr=False, compare=False)
    keys: Names = field(init=False, repr=False, compare=False)
    free: Names = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        labels, result = self.labels, self.result
        *leading_axes, queries, keys = self.maps
        leading = flattened(leading_axes)
        free = tuple(n for n in labels if n in result and n not in leading)
        object.__setattr__(self, "batch", tuple(n for n in leading if n in result))
        object.__setattr__(self, "heads", tuple(n for n in leading if n not in result))
        object.__setattr__(self, "rows", tuple(n for n in queries if n in result))
        object.__setattr__(self, "heads_in_rows", tuple(n for n in queries if n not in result))
        object.__setattr__(self, "keys", keys)
        object.__setattr__(self, "free", free)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `"b h q k, b k -> b q"`.

        Raises:
            NotationError: the text is no mixing equation, or it mixes along other axes than that of
                the keys.
        """
        equation = MixingEquation.parse(text)
        if len(equation.weights) < 2:
            raise NotationError(
                f"an attention map has axes of queries and of keys, unlike {text!r}"
            )
        found = cls(equation)
        mixed = (*found.heads, *found.maps[-2])
        misplaced = [name for name in mixed if name in found.labels]
        misplaced += [name for name in found.keys if name in found.result]
        if misplaced:
            raise NotationError(
                "attention mixes along the last axis of its map, each query by itself: "
                f"{misplaced} of {text!r} are in other places"
            )
        return found

    @property
    def maps(self) -> Axes:
        """The axes of the attention maps."""
        return self.equation.weights

    @property
    def labels(self) -> Names:
        """The dimensions of the labels."""
        return self.equation.labels

    @property
    def result(self) -> Names:
        """The dimensions of the mixed labels."""
        return self.equation.result

    @property
    def averages_heads_alone(self) -> bool:
        """Whether a map is (batch, heads, queries, keys), and its heads are what is averaged."""
        by_axis = (self.batch, self.heads, self.rows, self.keys)
        return self.maps == by_axis and bool(self.heads)

    @property
    def is_in_order(self) -> bool:
        """Whether labels are (batch, keys) and the result is (batch, queries)."""
        return (
            (len(self.batch), len(self.rows), len(self.keys)) == (1, 1, 1)
            and self.labels == self.batch + self.keys
            and self.result == self.batch + self.rows
        )

    @property
    def batch_groups(self) -> Axes:
        """A group for each name of the batch."""
        return tuple((name,) for name in self.batch)
