"""What a rule says of a product: `"... i, o i -> ... o"`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from labeltrace.errors import NotationError
from labeltrace.index_notation.parsing import (
    ELLIPSIS,
    Names,
    check_names,
    parse_equation,
    plain_names,
)
from labeltrace.index_notation.spare_names import spare_letters


@dataclass(frozen=True, slots=True)
class ContractionEquation:
    """The axes of a product of two tensors, by name; `...` among them is any number of axes.

    Names that both operands have and the result lacks are contracted, as in `torch.einsum`.

    Examples:
        >>> equation = ContractionEquation.parse("... i, o i -> ... o")
        >>> equation.with_axes_named((3, 2), 3).result
        ('a', 'b', 'o')
    """

    first: Names
    second: Names
    result: Names

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `"... i, o i -> ... o"`.

        Raises:
            NotationError: the text is no product of two operands, one of them has an axis twice, or
                the result has an axis that neither has.
        """
        first, second, result = (
            plain_names(axes, role, text)
            for axes, role in zip(
                parse_equation(text, operands=2, ellipsis=True),
                ("first operand", "second operand", "result"),
                strict=True,
            )
        )
        operands = (tuple((name,) for name in names) for names in (first, second))
        check_names(operands, result, text)
        return cls(first, second, result)

    def with_axes_named(self, ranks: tuple[int, int], rank: int) -> ContractionEquation:
        """The equation with letters in the place of `...`, which are aligned at their last axes.

        Args:
            ranks: how many axes the operands have.
            rank: how many the result has.

        Raises:
            NotationError: an operand or the result has another number of axes than the equation.
        """
        sides = list(zip((self.first, self.second, self.result), (*ranks, rank), strict=True))
        counts = [count - len(names) + 1 for names, count in sides if ELLIPSIS in names]
        spare = spare_letters((*self.first, *self.second, *self.result))
        leading = spare[::-1][: max(counts, default=0)]
        first, second, result = (self._named(names, count, leading) for names, count in sides)
        return ContractionEquation(first, second, result)

    def _named(self, names: Names, rank: int, leading: Sequence[str]) -> Names:
        """The names of one tensor, with the last of the leading ones in the place of `...`."""
        missing = rank - len(names) + 1
        if ELLIPSIS not in names:
            if missing == 1:
                return names
        elif missing >= 0:
            index = names.index(ELLIPSIS)
            ellipsis = leading[len(leading) - missing :]
            return (*names[:index], *ellipsis, *names[index + 1 :])
        raise NotationError(
            f"{' '.join(names)!r} in {str(self)!r} does not name the axes of a tensor that has "
            f"{rank}"
        )

    def __str__(self) -> str:
        sides = (self.first, self.second, self.result)
        first, second, result = (" ".join(names) for names in sides)
        return f"{first}, {second} -> {result}"
