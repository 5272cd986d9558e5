"""An operand whose axes have the names that an index notation gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from labeltrace.flow.operand import Operand
from labeltrace.layout import Axis, has_positions, is_repeated


@dataclass(frozen=True, slots=True)
class NamedOperand:
    """One operand's axes by letter; broadcast axes are left out."""

    operand: Operand
    letters: tuple[str, ...]
    axes: Mapping[str, Axis]

    def has_positions(self, letter: str) -> bool:
        """Whether the operand has an axis of that letter with positions."""
        return has_positions(self.axes.get(letter, ()))

    def varies_along(self, letter: str) -> bool:
        """Whether the operand has the axis, and not as copies alone."""
        return letter in self.axes and not is_repeated(self.axes[letter])

    @property
    def positions(self) -> set[str]:
        """The letters along which the operand's label varies."""
        return {letter for letter in self.axes if self.has_positions(letter)}
