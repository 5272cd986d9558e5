"""Names that an equation does not use yet, for axes that nobody has named."""

from __future__ import annotations

from collections.abc import Iterable
from string import ascii_lowercase


def spare_letters(used: Iterable[str]) -> list[str]:
    """The letters that are in none of the names, from `z` down: the last one is taken first."""
    letters = set("".join(used))
    return [letter for letter in reversed(ascii_lowercase) if letter not in letters]


class SpareNames:
    """Hands out letters that are not in use, each once, in alphabetical order."""

    def __init__(self, used: Iterable[str]) -> None:
        self._spare = spare_letters(used)

    def fresh(self) -> str:
        """The next letter."""
        return self._spare.pop()
