"""The text of index notation, read into names: `"(b h) q k, b k -> b q"`.

The grammar:

    equation  ::=  operand ("," operand)* "->" operand
    operand   ::=  axis*
    axis      ::=  name | "..." | "(" name* ")"

An axis in parentheses is made of several factors, the outermost first.  `...` is any number of
leading axes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from labeltrace.errors import NotationError

Names = tuple[str, ...]
"""Names of axes."""

Axes = tuple[Names, ...]
"""The axes of one operand, each as the names of its factors: a plain axis has one."""

ELLIPSIS = "..."

_SIGNS = ("->", ",", "(", ")")
_WORD = re.compile(r"->|[(),]|(?:(?!->)[^\s(),])+")


def parse_equation(text: str, operands: int, ellipsis: bool = False) -> tuple[Axes, ...]:
    """The axes of each operand and, last, of the result.

    Examples:
        >>> parse_equation("(b h) q k, b k -> b q", operands=2)
        ((('b', 'h'), ('q',), ('k',)), (('b',), ('k',)), (('b',), ('q',)))

    Args:
        text: the equation.
        operands: how many operands it must have.
        ellipsis: whether `...` may be an axis.

    Raises:
        NotationError: the text is no such equation; the message quotes it and says at which
            character it goes wrong.
    """
    words = split_words(text)
    ends = [*_separators(text, words, operands), len(words)]
    starts = [0, *(end + 1 for end in ends[:-1])]
    return tuple(
        _parse_axes(text, words, start, end, ellipsis)
        for start, end in zip(starts, ends, strict=True)
    )


def split_words(text: str) -> list[str]:
    """The names and signs of an equation, in order."""
    for sign in _SIGNS:
        text = text.replace(sign, f" {sign} ")
    return text.split()


def axes_text(axes: Iterable[Names]) -> str:
    """Axes as text, the inverse of parsing.

    Examples:
        >>> axes_text((("b", "h"), ("q",), ("k",)))
        '(b h) q k'
    """
    return " ".join(axis[0] if len(axis) == 1 else f"({' '.join(axis)})" for axis in axes)


def flattened(axes: Iterable[Names]) -> Names:
    """The names of all factors, in order."""
    return tuple(name for axis in axes for name in axis)


def plain_names(axes: Axes, operand: str, text: str) -> Names:
    """The names of axes that are made of one factor each.

    Raises:
        NotationError: an axis is in parentheses.  The message calls the axes those of `operand`.
    """
    if any(len(axis) != 1 for axis in axes):
        raise NotationError(
            f"the {operand} of {text!r} cannot have axes in parentheses: write each name by itself"
        )
    return flattened(axes)


def check_names(operands: Iterable[Axes], result: Names, text: str) -> None:
    """Check that nothing names an axis twice, and that the result has axes of the operands alone.

    Raises:
        NotationError: the equation `text` does not hold to that.
    """
    known: set[str] = set()
    for names in (*map(flattened, operands), result):
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise NotationError(
                f"{repeated[0]!r} names two axes of one tensor in {text!r}: diagonals are not "
                "followed"
            )
        unknown = [name for name in names if name not in known]
        if names is result and unknown:
            raise NotationError(f"no operand of {text!r} has the result's axis {unknown[0]!r}")
        known |= set(names)


def _separators(text: str, words: list[str], operands: int) -> list[int]:
    """The indices of the words between operands, and before the result."""
    found = [index for index, word in enumerate(words) if word in (",", "->")]
    wanted = [","] * (operands - 1) + ["->"]
    if [words[index] for index in found] == wanted:
        return found
    wrong = (index for index, sign in zip(found, wanted, strict=False) if words[index] != sign)
    extra = found[len(wanted)] if len(found) > len(wanted) else len(words)
    counted = "one operand" if operands == 1 else f"{operands} operands"
    raise _error(text, next(wrong, extra), f"{counted}, '->' and a result are expected")


def _parse_axes(text: str, words: list[str], start: int, end: int, ellipsis: bool) -> Axes:
    """The axes that the words from `start` to `end` name."""
    axes: list[Names] = []
    factors: list[str] | None = None  # those since an open parenthesis
    for index in range(start, end):
        word = words[index]
        if word == "(" and factors is None:
            factors = []
        elif word == ")" and factors is not None:
            axes.append(tuple(factors))
            factors = None
        elif word in ("(", ")"):
            raise _error(text, index, f"{word!r} has no partner")
        elif not word.isidentifier() and not (ellipsis and word == ELLIPSIS and factors is None):
            raise _error(text, index, f"{word!r} cannot be the name of an axis")
        elif factors is None:
            axes.append((word,))
        else:
            factors.append(word)
    if factors is not None:
        raise _error(text, end, "a parenthesis is not closed")
    return tuple(axes)


def _error(text: str, index: int, what: str) -> NotationError:
    """An error that points at the word of that index, or at the end of the text."""
    starts = [found.start() for found in _WORD.finditer(text)]
    position = (*starts, len(text))[index]
    return NotationError(f"{what}, at character {position} of the index notation {text!r}")
